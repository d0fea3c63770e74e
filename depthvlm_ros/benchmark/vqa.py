# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Questions in words, to see whether language is kept: `python -m depthvlm_ros.benchmark.vqa --help`.

Prints a table and, last, one line of JSON. An annotation file has a line of JSON a question:
image, question, answers (those that are accepted), and where known fx (px) and kind. With --out
every answer is kept, and a run that was stopped goes on.
"""

import argparse
from collections import Counter, defaultdict
from pathlib import Path
import re
import sys
import unicodedata

from depthvlm_ros.benchmark.annotations import (
    camera_of,
    check_text,
    enumerate_json_lines,
    parse_positive,
    read_rgb,
    read_utf8,
    RecordError,
)
from depthvlm_ros.benchmark.loading import add_loading, Loading
from depthvlm_ros.benchmark.predictors import digest_of
from depthvlm_ros.benchmark.provenance import json_line, provenance
from depthvlm_ros.benchmark.results import mean, Results, sha256_of
from depthvlm_ros.model import Predictor
from depthvlm_ros.options import at_least
from tqdm import tqdm

ARTICLES = {'a', 'an', 'the'}
# The choice A, and no article: where it ends a part of the sentence, or stands behind what it is.
OPTION_A = re.compile(r'\bA(?=\s*(?:[.,:;)!?]|$))|\b(?i:option|answer|choice)(?: is)?:? \(?A\b')
THOUSANDS = re.compile(r'(?<![\d.,\[(])\d{1,3}(?:,\d{3})+(?![\d,\])])')      # 1,000 and no place
BARE_POINT = re.compile(r'(?<![\w.])\.(?=\d)')     # .5 is 0.5
MINUS = '\N{MINUS SIGN}'
ALL = 'all'  # the row over all kinds


def normalise(text):
    """Return the words of an answer: lower case, no punctuation, no articles beside others."""
    text = unicodedata.normalize('NFC', text.lower()).replace(MINUS, '-')
    text = THOUSANDS.sub(lambda found: found[0].replace(',', ''), text)
    text = BARE_POINT.sub('0.', text)
    # A minus sign is one that stands before a number and not between two, as in 10-20.
    words = re.findall(r'(?:(?<![\w.])-)?\d+(?:\.\d+)?|[^\W\d_]+', text)
    return [word for word in words if word not in ARTICLES] or words


def is_exact(answer, accepted):
    """Tell whether an answer is one of those accepted."""
    words = normalise(answer)
    return bool(words) and words in [normalise(one) for one in accepted]


def is_contained(answer, accepted):
    """Tell whether an answer holds one of those accepted, as whole words in a row."""
    words = normalise(answer)
    for one in map(normalise, accepted):
        if one == ['a'] and OPTION_A.search(answer):
            return True
        if one and any(words[i:i + len(one)] == one for i in range(len(words) - len(one) + 1)):
            return True
    return False


def read_questions(path):
    """
    Read an annotation file.

    :return: list of dicts with image, question, answers, and maybe fx, kind and exact_answers.
    :raises ValueError: a line that is no JSON, or lacks a field.
    """
    path = Path(path)
    asked = []
    for line, fields in enumerate_json_lines(read_utf8(path), path.name):
        where = f'{path.name} line {line + 1}'
        for name, kind in (('image', str), ('question', str), ('answers', list)):
            if not isinstance(fields, dict) or not isinstance(fields.get(name), kind):
                raise ValueError(f'{where}: {name} is missing or no {kind.__name__}, wanted '
                                 'image, question and a list of answers')
        check_text(fields['question'], f'{where}: question')
        check_text(fields['image'], f'{where}: image')
        if not all(isinstance(a, str) for a in fields['answers']) or not any(
                map(normalise, fields['answers'])):
            raise ValueError(f'{where}: answers is {fields["answers"]!r}, wanted strings, with a '
                             'word in one of them at least')
        lone = fields.get('exact_answers', [])
        if not isinstance(lone, list) or not all(isinstance(a, str) for a in lone):
            raise ValueError(f'{where}: exact_answers is {lone!r}, wanted a list of strings')
        kind, fx_px = fields.get('kind') or '', fields.get('fx')
        if not isinstance(kind, str) or kind == ALL:
            raise ValueError(f'{where}: kind is {kind!r}, wanted a word other than {ALL!r}')
        check_text(kind, f'{where}: kind')
        if not isinstance(fx_px, int | float | None) or isinstance(fx_px, bool):
            raise ValueError(f'{where}: fx is {fx_px!r}, wanted a number above 0')
        parse_positive(fx_px, 'fx', where)
        asked.append(fields)
    if not asked:
        raise ValueError(f'{path}: holds no question, wanted one at least')
    return asked


def measure(predictor, asked, image_root, max_tokens=64, results=None):
    """
    Ask every question; questions about one image that follow each other share one look.

    :param predictor: model.Predictor.
    :param asked: as read_questions gives them.
    :param results: Results that keeps every answer; questions that it has one of are passed by.
    :return: dict: 'kinds': kind -> exact and contained (shares), asked; 'all' among them;
        'skipped': reason -> count of questions.
    """
    results = results or Results(None, {})
    keys = [{'number': number, 'image': fields['image'], 'question': fields['question']}
            for number, fields in enumerate(asked)]
    left = [(key, fields) for key, fields in zip(keys, asked) if not results.is_done(key)]
    shown, view = None, None
    for key, fields in tqdm(left, unit='question', mininterval=1, initial=len(asked) - len(left),
                            total=len(asked)):
        image = fields['image'], fields.get('fx')
        if image != shown:
            shown, view = image, look(predictor, fields, image_root)
        if isinstance(view, RecordError):
            results.add(key, error=view)
            continue
        answer = predictor.ask(view, fields['question'], max_tokens).text
        exact = is_exact(answer, [*fields['answers'], *fields.get('exact_answers', ())])
        contained = exact or is_contained(answer, fields['answers'])
        results.add(key, {'kind': fields.get('kind') or '', 'answer': answer, 'exact': exact,
                          'contained': contained})
    return summarise(results.of(keys))


def summarise(entries):
    """Return what `measure` returns, of Results' entries."""
    right = defaultdict(list)
    for figures in [entry['figures'] for entry in entries if 'figures' in entry]:
        for kind in {ALL, figures['kind'] or ALL}:
            right[kind].append(figures)
    kinds = {kind: {**{match: mean([figures[match] for figures in judged])
                       for match in ('exact', 'contained')}, 'asked': len(judged)}
             for kind, judged in right.items()}
    skipped = Counter(entry['skipped'] for entry in entries if 'skipped' in entry)
    return {'kinds': kinds, 'skipped': dict(skipped)}


def look(predictor, fields, image_root):
    """Look at a question's image; returns a View, or the RecordError that says why not."""
    path = Path(image_root) / fields['image']
    try:
        rgb = read_rgb(path)
        camera = camera_of(rgb, fields.get('fx'), predictor.config.canonical_fx, 'fx')
        return predictor.look(rgb, camera)
    except RecordError as e:
        error = e
    except ValueError as e:
        error = RecordError('prediction', f'{path}: {e}')
    tqdm.write(f'skipped ({error.reason}): {error}', file=sys.stderr)
    return error


def print_table(result):
    """Print the figures for people."""
    print(f"{result['model']}: {result['annotations']}")
    print(f'{"":10}    exact contained    asked')
    for kind in sorted(result['kinds'], key=lambda kind: (kind == ALL, kind)):
        values = result['kinds'][kind]
        print(f"{kind:10} {values['exact']:8.3f} {values['contained']:9.3f} "
              f"{values['asked']:8}")
    for reason, count in result['skipped'].items():
        print(f'skipped: {count} ({reason})')


def main(args=None):
    """Parse the command line, ask, print; returns 1 where nothing could be asked."""
    parser = argparse.ArgumentParser(description=__doc__.split(': `')[0])
    parser.add_argument('--annotations', required=True, metavar='FILE')
    parser.add_argument('--image-root', metavar='DIR', help="the annotations' folder if left out")
    parser.add_argument('--model', default='nano', help="'nano', a folder or a hub id")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--limit', type=at_least(0), default=0,
                        help='first so many questions')
    parser.add_argument('--max-tokens', type=at_least(1), default=64,
                        help='of an answer')
    parser.add_argument('--out', metavar='FILE',
                        help='keep every answer here (JSONL), and go on with those that it has')
    add_loading(parser)
    options = parser.parse_args(args)
    root = Path(options.image_root or Path(options.annotations).parent)
    loading = Loading.of(options)
    try:
        asked = read_questions(options.annotations)[:options.limit or None]
        predictor = Predictor.from_pretrained(options.model, device=options.device,
                                              **loading.as_dict())
        settings = {'model': options.model, 'loading': loading.as_dict(),
                    'max_tokens': options.max_tokens}
        results = Results(options.out, {
            **settings, 'weights': digest_of(options.model) if options.out else None,
            'image_root': str(root.resolve()), 'device_type': predictor.device.type,
            'annotations': sha256_of(options.annotations)})
    except (ValueError, OSError) as e:
        print(f'vqa: {e}', file=sys.stderr)
        return 2
    result = {**settings, 'annotations': str(options.annotations),
              **provenance(predictor.device, predictor.model.dtype),
              **measure(predictor, asked, root, options.max_tokens, results)}
    print_table(result)
    print(json_line(result))
    return 0 if result['kinds'] else 1


if __name__ == '__main__':
    sys.exit(main())
