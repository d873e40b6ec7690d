"""Reads the report of a run of the Autobahn suite: prints the totals of each server in one line, and ends with 1 if a
case failed, or went otherwise through the gateway than without, and with 2 if too few were run.

usage: totals.py INDEX_JSON LEAST_CASES
"""

from __future__ import print_function

import collections
import json
import sys

PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")
PASSED_CLOSE = ("OK", "INFORMATIONAL")

# What is judged by itself, and what has to be as something else is.
JUDGED = {"relay": "the relay"}
COMPARED = {
    "through": ("direct", "an echo server through the gateway"),
    "ruled": ("direct", "an echo server through the gateway with a rule"),
}

# Categories that some servers are not asked: they do not compress.
LEFT_OUT = {"ruled": ("12.", "13.")}


def case_order(case):
    return [int(part) for part in case.split(".")]


def outcome(case):
    return case["behavior"], case["behaviorClose"]


def is_failed(case):
    return case["behavior"] not in PASSED or case["behaviorClose"] not in PASSED_CLOSE


def tell(title, cases, wrong, what):
    counts = collections.Counter(case["behavior"] for case in cases.values())
    passed = ", ".join("%d %s" % (counts[name], name) for name in PASSED)
    print("Autobahn, %s: %d cases: %s; %d %s" % (title, len(cases), passed, len(wrong), what))
    if wrong:
        print("%s: %s" % (what, " ".join(sorted(wrong, key=case_order))))


def main(index, least):
    with open(index) as report:
        agents = json.load(report)
    few, wrong = [], []
    for agent, title in JUDGED.items():
        cases = agents.get(agent, {})
        failed = [name for name, case in cases.items() if is_failed(case)]
        tell(title, cases, failed, "failed")
        few += [title] if len(cases) < least else []
        wrong += failed
    for agent, (other, title) in COMPARED.items():
        cases, others = agents.get(agent, {}), agents.get(other, {})
        names = set(name for name in set(cases) | set(others) if not name.startswith(LEFT_OUT.get(agent, ())))
        # What fails without the gateway, the other server being slow to close, says nothing about the gateway.
        differ = [
            name
            for name in names
            if name not in cases
            or name not in others
            or (outcome(cases[name]) != outcome(others[name]) and not is_failed(others[name]))
        ]
        tell(title, cases, differ, "differ from without")
        few += [title] if len(cases) < least else []
        wrong += differ
    if few:
        print("at least %d cases are expected of %s" % (least, " and ".join(few)))
        return 2
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
