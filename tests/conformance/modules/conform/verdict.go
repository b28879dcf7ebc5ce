package main

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"os"
	"regexp"
	"slices"
	"sort"
	"strings"
)

// fewFailures are worth a second run.
const fewFailures = 3

// outcome of a spec.
type outcome string

const (
	passed  outcome = "passed"
	failed  outcome = "failed"
	skipped outcome = "skipped"
	// Of an expectation only: passed or failed, and which is no news.
	either outcome = "either"
)

// expectation is what a list says of a spec, and why.
type expectation struct {
	outcome outcome
	reason  string
}

type suite struct {
	Cases []struct {
		Name    string `xml:"name,attr"`
		Status  string `xml:"status,attr"`
		Skipped *struct {
			Message string `xml:"message,attr"`
		} `xml:"skipped"`
	} `xml:"testsuite>testcase"`
}

// verdict compares a report with the lists. It is an error if a spec fails or is skipped that is not listed as such, if
// one passes that is listed as failing, and if a list names a spec that the suite does not have. A listed skip that
// passes is good news: the machine can do more than the list says.
//
// Reports are separated by commas. What a later one says of a spec counts, and is said: specs that failed and were run
// again by themselves.
func verdict(reports string, lists []string) error {
	first, second, _ := strings.Cut(reports, ",")
	outcomes, filtered, err := readReport(first)
	if err != nil {
		return err
	}
	if second != "" {
		again, _, err := readReport(second)
		if err != nil {
			return err
		}
		for name, got := range again {
			fmt.Printf("%s, then %s when it was run again: %s\n", outcomes[name], got, name)
			outcomes[name] = got
		}
	}
	expected, err := readLists(lists)
	if err != nil {
		return err
	}
	count, foreseen := map[outcome]int{}, map[outcome]int{}
	var wrong []string
	for name, got := range outcomes {
		count[got]++
		want, listed := expected[name]
		switch {
		case listed && want.outcome == got:
			foreseen[got]++
		case listed && want.outcome == either && got != skipped:
			foreseen[got]++
			fmt.Printf("%s, and may do either (%s): %s\n", got, want.reason, name)
		case listed && want.outcome == skipped && got == passed:
			fmt.Printf("passed, though listed as skipped (%s): %s\n", want.reason, name)
		case listed:
			wrong = append(wrong, fmt.Sprintf("%s, though listed as %s (%s): %s", got, want.outcome, want.reason, name))
		case got != passed:
			wrong = append(wrong, fmt.Sprintf("%s, and not listed: %s", got, name))
		}
	}
	for name, want := range expected {
		if _, ran := outcomes[name]; !ran && !filtered[name] {
			wrong = append(wrong, fmt.Sprintf("listed as %s, but the suite has no such spec: %s", want.outcome, name))
		}
	}
	sort.Strings(wrong)
	for _, line := range wrong {
		fmt.Println(line)
	}
	fmt.Printf("as listed: %d failed, %d skipped\n", foreseen[failed], foreseen[skipped])
	fmt.Printf("%d passed, %d failed, %d skipped\n", count[passed], count[failed], count[skipped])
	if len(wrong) > 0 {
		return fmt.Errorf("%d specs are not as listed", len(wrong))
	}
	return nil
}

// again prints an expression for the specs that failed and are not listed, if they are few: on a busy machine a spec may
// fail by itself. One, for example, stops a container whose first process had no time yet to care for signals.
func again(report string, lists []string) error {
	outcomes, _, err := readReport(report)
	if err != nil {
		return err
	}
	expected, err := readLists(lists)
	if err != nil {
		return err
	}
	var names []string
	for name, got := range outcomes {
		if _, listed := expected[name]; got == failed && !listed {
			// Some of what is in brackets behind a name is no part of it.
			text, _, _ := strings.Cut(name, " [Conformance]")
			text, _, _ = strings.Cut(text, " [Serial]")
			names = append(names, regexp.QuoteMeta(text)+`( \[|$)`)
		}
	}
	sort.Strings(names)
	if len(names) <= fewFailures {
		fmt.Println(strings.Join(names, "|"))
	}
	return nil
}

func readLists(lists []string) (map[string]expectation, error) {
	expected := map[string]expectation{}
	for _, list := range lists {
		if err := readList(list, expected); err != nil {
			return nil, err
		}
	}
	return expected, nil
}

// readReport returns what became of each spec, and those that the command line left out.
func readReport(path string) (map[string]outcome, map[string]bool, error) {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	var report suite
	if err := xml.Unmarshal(bytes, &report); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	outcomes, filtered := map[string]outcome{}, map[string]bool{}
	for _, c := range report.Cases {
		name, isSpec := strings.CutPrefix(c.Name, "[It] ")
		if !isSpec {
			if c.Status != "passed" {
				return nil, nil, fmt.Errorf("%s: %s", c.Name, c.Status)
			}
			continue
		}
		name = strings.TrimPrefix(name, "[k8s.io] ")
		switch {
		case c.Status == "passed":
			outcomes[name] = passed
		case c.Status == "skipped" && c.Skipped != nil && c.Skipped.Message == "skipped":
			filtered[name] = true
		case c.Status == "skipped", c.Status == "pending":
			outcomes[name] = skipped
		default:
			outcomes[name] = failed
		}
	}
	if len(outcomes) == 0 {
		return nil, nil, fmt.Errorf("%s: no spec ran", path)
	}
	return outcomes, filtered, nil
}

// readList adds a list: `[failed] reason`, `[skipped] reason` or `[either] reason`, below it one spec a line; # begins a
// comment.
func readList(path string, into map[string]expectation) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	var current expectation
	lines := bufio.NewScanner(file)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if word, reason, ok := strings.Cut(line, "] "); ok && line[0] == '[' {
			current = expectation{outcome(word[1:]), reason}
			if !slices.Contains([]outcome{failed, skipped, either}, current.outcome) {
				return fmt.Errorf("%s:%d: [failed], [skipped] or [either], and a reason", path, number)
			}
			continue
		}
		if current.reason == "" {
			return fmt.Errorf("%s:%d: a spec before any [outcome] with a reason", path, number)
		}
		if _, twice := into[line]; twice {
			return fmt.Errorf("%s:%d: listed twice: %s", path, number, line)
		}
		into[line] = current
	}
	return lines.Err()
}
