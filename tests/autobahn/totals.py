"""Reads the report of a run of the Autobahn suite: prints the totals in one line, and ends with 1 if a case failed
and with 2 if too few were run.

usage: totals.py INDEX_JSON LEAST_CASES
"""

from __future__ import print_function

import collections
import json
import sys

PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")
PASSED_CLOSE = ("OK", "INFORMATIONAL")


def case_order(case):
    return [int(part) for part in case.split(".")]


def main(index, least):
    with open(index) as report:
        agents = json.load(report)
    cases = next(iter(agents.values()), {})
    counts = collections.Counter(case["behavior"] for case in cases.values())
    failed = [
        name
        for name, case in cases.items()
        if case["behavior"] not in PASSED or case["behaviorClose"] not in PASSED_CLOSE
    ]
    passed = ", ".join("%d %s" % (counts[name], name) for name in PASSED)
    print("Autobahn: %d cases: %s; %d failed" % (len(cases), passed, len(failed)))
    if failed:
        print("failed: " + " ".join(sorted(failed, key=case_order)))
    if len(cases) < least:
        print("only %d cases were run, %d are expected" % (len(cases), least))
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
