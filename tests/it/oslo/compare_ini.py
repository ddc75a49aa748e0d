"""Answers, for tests/it/config.rs, what the real oslo.config makes of files, environments and texts.

One JSON object on standard input, one on standard output; nothing is asserted here.
"""

import json
import os
import sys
import tempfile

from oslo_config import cfg
from oslo_config import types


def write(directory, name, text):
    path = os.path.join(directory, name)
    with open(path, 'w', encoding='utf-8', newline='') as f:
        f.write(text)
    return path


def parse(directory, text):
    """Sections, keys and raw values of one file; None when it is refused."""
    sections = {}
    try:
        cfg.ConfigParser(write(directory, 'parse.conf', text), sections).parse()
    except Exception:
        return None
    return [
        [section, key, values]
        for section, options in sections.items()
        for key, values in options.items()
    ]


OPTIONS = {
    'string value': lambda o: cfg.StrOpt(o['name'], default=o['default']),
    'integer value': lambda o: cfg.IntOpt(
        o['name'], default=o['default'], min=o['min'], max=o['max']),
    'floating point value': lambda o: cfg.FloatOpt(
        o['name'], default=o['default'], min=o['min'], max=o['max']),
    'boolean value': lambda o: cfg.BoolOpt(o['name'], default=o['default']),
    # The defaults of ours have one element.
    'multi valued': lambda o: cfg.MultiStrOpt(o['name'], default=[o['default']]),
    # Keys have no order that matters: ours are sorted.
    'dict value': lambda o: cfg.DictOpt(o['name'], default=types.Dict()(o['default'] or '')),
    'list value': lambda o: cfg.ListOpt(o['name'], default=o['default']),
}


def shown(value):
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ','.join(value)
    if isinstance(value, dict):
        return ','.join('%s:%s' % pair for pair in sorted(value.items()))
    return str(value)


def load(directory, options, case):
    """All values of a configuration; None when one of them is refused."""
    names = [write(directory, '%d.conf' % i, text) for i, text in enumerate(case['files'])]
    os.environ.update(case['environment'])
    try:
        conf = cfg.ConfigOpts()
        for option in options:
            group = None if option['group'] == 'DEFAULT' else option['group']
            conf.register_opt(OPTIONS[option['kind']](option), group)
        conf([part for name in names for part in ('--config-file', name)], project='lambda')
        values = {}
        for option in options:
            group = conf if option['group'] == 'DEFAULT' else conf[option['group']]
            values['%s.%s' % (option['group'], option['name'])] = shown(group[option['name']])
        return values
    except Exception:
        return None
    finally:
        for name in case['environment']:
            del os.environ[name]


def convert(kind, text):
    try:
        return kind(text)
    except Exception:
        return None


def main():
    asked = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as directory:
        json.dump({
            'parsed': [parse(directory, text) for text in asked['texts']],
            'loaded': [load(directory, asked['options'], case) for case in asked['cases']],
            'lists': [convert(types.List(), text) for text in asked['lists']],
            'maps': [convert(types.Dict(), text) for text in asked['maps']],
        }, sys.stdout)


main()
