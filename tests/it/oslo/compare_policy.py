"""What oslo.policy decides: reads rules, questions, callers and targets as JSON from standard input, and writes for each
question a list of verdicts, callers outside, targets inside. An exception is a refusal, as it is to the service that asks.
"""

import copy
import json
import logging
import sys

from oslo_config import cfg
from oslo_policy import _parser
from oslo_policy import policy


def verdict(enforcer, check, target, caller):
    try:
        return bool(enforcer.enforce(check, copy.deepcopy(target), copy.deepcopy(caller)))
    except Exception:
        return False


def main():
    # What cannot be understood is logged, with a traceback each.
    logging.disable(logging.CRITICAL)
    asked = json.load(sys.stdin)
    answers = []
    for rules in asked['rules']:
        enforcer = policy.Enforcer(cfg.ConfigOpts(), use_conf=False, default_rule='default')
        enforcer.conf([])
        enforcer.set_rules(policy.Rules.from_dict(rules, 'default'), use_conf=False)
        answers.append([
            [[verdict(enforcer, _parser.parse_rule(text), target, caller) for target in asked['targets']]
             for caller in asked['callers']]
            for text in asked['texts']
        ])
    json.dump(answers, sys.stdout)


main()
