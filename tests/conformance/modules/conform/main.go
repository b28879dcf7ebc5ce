// Command conform is what conformance needs besides the suite: it packs and pushes the images that the suite asks for, and
// judges the suite's report by the list of what is expected to fail.
package main

import (
	"fmt"
	"os"
)

const usage = `usage:
  conform images TREES OUT            pack the file trees below TREES into images below OUT
  conform push OUT ADDRESS            push the images below OUT to the registry at ADDRESS
  conform again REPORT LIST...        print an expression for specs that failed though not listed, if they are few
  conform verdict REPORT LIST...      judge a JUnit report; the last line is "N passed, N failed, N skipped"`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "images":
		return pack(args[1], args[2])
	case len(args) == 3 && args[0] == "push":
		return push(args[1], args[2])
	case len(args) >= 2 && args[0] == "again":
		return again(args[1], args[2:])
	case len(args) >= 2 && args[0] == "verdict":
		return verdict(args[1], args[2:])
	}
	return fmt.Errorf("%s", usage)
}
