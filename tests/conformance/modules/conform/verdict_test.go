package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const report = `<testsuites><testsuite>
<testcase name="[SynchronizedBeforeSuite]" status="passed"></testcase>
<testcase name="[It] [k8s.io] works" status="passed"></testcase>
<testcase name="[It] [k8s.io] breaks" status="failed"><failure message="no"></failure></testcase>
<testcase name="[It] [k8s.io] cannot" status="skipped"><skipped message="skipped - no AppArmor"></skipped></testcase>
<testcase name="[It] [k8s.io] left out" status="skipped"><skipped message="skipped"></skipped></testcase>
</testsuite></testsuites>`

func judge(t *testing.T, report, list string) error {
	t.Helper()
	dir := t.TempDir()
	reportPath, listPath := filepath.Join(dir, "report"), filepath.Join(dir, "list")
	for path, text := range map[string]string{reportPath: report, listPath: list} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return verdict(reportPath, []string{listPath})
}

func TestVerdict(t *testing.T) {
	const exact = "# why\n[failed] issue 9\nbreaks\n[skipped] no AppArmor\ncannot\n"
	for _, c := range []struct {
		name, report, list string
		good               bool
	}{
		{"as listed", report, exact, true},
		{"a listed spec that was left out", report, exact + "left out\n", true},
		{"a failure off the list", report, "[skipped] no AppArmor\ncannot\n", false},
		{"a skip off the list", report, "[failed] issue 9\nbreaks\n", false},
		{"a listed failure that passes", report, exact + "[failed] issue 1\nworks\n", false},
		{"a listed skip that passes", report, exact + "[skipped] maybe\nworks\n", true},
		{"a listed skip that fails", report, "[skipped] maybe\nbreaks\ncannot\n", false},
		{"a listed failure that is skipped", report, "[failed] issue 9\nbreaks\ncannot\n", false},
		{"either, and it failed", report, "[either] a race\nbreaks\n[skipped] no AppArmor\ncannot\n", true},
		{"either, and it passed", report, exact + "[either] a race\nworks\n", true},
		{"either, and it was skipped", report, "[failed] issue 9\nbreaks\n[either] a race\ncannot\n", false},
		{"a word that is no outcome", report, exact + "[sometimes] a race\nworks\n", false},
		{"a name of no spec", report, exact + "is not there\n", false},
		{"a spec listed twice", report, exact + "cannot\n", false},
		{"a spec without a reason", report, "breaks\n" + exact, false},
		{"no spec at all", `<testsuites></testsuites>`, "", false},
		{"a suite that failed to start", strings.Replace(report, "passed", "failed", 1), exact, false},
		{"not a report", "boom", exact, false},
	} {
		if err := judge(t, c.report, c.list); (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestASecondRunCounts(t *testing.T) {
	dir := t.TempDir()
	paths := map[string]string{"first": report, "list": "[skipped] no AppArmor\ncannot\n",
		"second": strings.Replace(report, `breaks" status="failed"`, `breaks" status="passed"`, 1)}
	for name, text := range paths {
		paths[name] = filepath.Join(dir, name)
		if err := os.WriteFile(paths[name], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lists := []string{paths["list"]}
	if verdict(paths["first"]+","+paths["first"], lists) == nil {
		t.Error("failed twice is a failure")
	}
	if err := verdict(paths["first"]+","+paths["second"], lists); err != nil {
		t.Errorf("passed the second time: %v", err)
	}
}
