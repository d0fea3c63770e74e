# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a training run is: frozen records, read from a YAML file."""

from dataclasses import dataclass, field, fields
import math
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin

from depthvlm_ros.camera import check_image_size
from depthvlm_ros.synthetic.wording import KINDS
import yaml

CONFIGS = Path(__file__).resolve().parent / 'configs'
SCHEDULES = ('cosine', 'trapezoid')
PRECISIONS = ('auto', 'bf16', 'float32')
OPTIMISERS = ('adamw', 'muon')
SAVED_DTYPES = ('float16', 'bfloat16', 'float32')
WANTED = {bool: 'true or false', str: 'text', dict: 'fields'}
MOST_SEED = 2**64 - 1       # that torch takes
LEAST_VOCABULARY = 263      # 256 bytes and the special tokens


def check_tokens(max_image_tokens):
    """
    Check a source's bound of image tokens.

    :raises ValueError: one below 0.
    """
    if max_image_tokens < 0:
        raise ValueError(f'max_image_tokens is {max_image_tokens}, wanted >= 0')


@dataclass(frozen=True)
class AnnotatedSource:
    """
    Images with depth files, listed by annotations in the released JSON-lines format.

    :param annotations: the file; its name tells the dataset, and so the range of valid depths.
    :param rgb_root: folder that the annotations' images are relative to.
    :param depth_root: folder that the depth files are relative to.
    :param share: of all samples; left out: every record once an epoch.
    :param range_m: nearest and farthest valid depth; left out: the dataset's own.
    :param max_image_tokens: most image tokens; 0 for no bound but the model's.
    :param euclidean: the depth is along the ray, whatever the records' depth_type says.
    """

    annotations: str
    rgb_root: str
    depth_root: str
    share: float | None = None
    range_m: tuple[float, float] | None = None
    max_image_tokens: int = 0
    euclidean: bool = False

    def __post_init__(self):
        check_tokens(self.max_image_tokens)
        if self.range_m is not None and not 0 <= self.range_m[0] < self.range_m[1]:
            raise ValueError(f'range_m is {list(self.range_m)}, '
                             'wanted 0 <= nearest < farthest, in m')


@dataclass(frozen=True)
class ChatSource:
    """
    Questions and answers in the common chat format, with an image or without.

    :param file: JSON lines; see chats.read_chat.
    :param image_root: folder that the images are relative to.
    :param share: of all samples; left out: every record once an epoch.
    :param max_image_tokens: most image tokens; 0 for no bound but the model's.
    """

    file: str
    image_root: str = '.'
    share: float | None = None
    max_image_tokens: int = 0

    def __post_init__(self):
        check_tokens(self.max_image_tokens)


@dataclass(frozen=True)
class RoomSource:
    """
    Synthetic rooms, made on the fly, without end.

    :param share: of all samples; left out: what sources that all have a share leave, or, of the
        only source, all. `steps` must be given where no source with an end is without a share.
    :param native_px: narrowest and widest camera image rendered.
    :param questions: most questions asked about an image.
    :param kinds: how often each kind of question is drawn, relative; a kind left out never is.
    :param numbers: how often "how many" is asked where there are none, one, two, ..., relative;
        the last goes for all more. Drawn alike, three in one view are too rare to be learnt.
    :param narrow: share of the cameras that is drawn from the narrower half of the views alone
        (fx from 0.89 of the width on); the others come from all of them.
    :param window: height and width of a randomly placed window in which the depth loss is taken,
        as a share of the image's; 1: everywhere.
    :param things: share of the depth loss's pixels that is on things, where any are seen: pixels
        of the room behind them, and of things seen large, are left out by lot. 0: all are taken,
        few of which are on things.
    """

    share: float | None = None
    native_px: tuple[int, int] = (240, 400)
    questions: int = 6
    kinds: dict = field(default_factory=lambda: {'depth': 1})
    numbers: tuple[float, ...] = (1.0,)
    narrow: float = 0.0
    window: float = 1.0
    things: float = 0.0

    def __post_init__(self):
        if not 0 < self.native_px[0] <= self.native_px[1]:
            raise ValueError(f'native_px is {list(self.native_px)}, '
                             'wanted 0 < narrowest <= widest, in px')
        check_image_size(self.native_px[1], self.native_px[1], f'native_px: {self.native_px[1]}')
        if self.questions < 1:
            raise ValueError(f'questions is {self.questions}, wanted >= 1')
        if not all(isinstance(often, int | float) and 0 <= often < math.inf
                   for often in self.kinds.values()):
            raise ValueError(f'kinds is {self.kinds}, wanted how often, numbers >= 0')
        if not self.numbers or not all(0 < often < math.inf for often in self.numbers):
            raise ValueError(f'numbers is {list(self.numbers)}, wanted how often, numbers > 0')
        if not 0 <= self.narrow <= 1:
            raise ValueError(f'narrow is {self.narrow}, wanted a share in [0, 1]')
        if not 0 < self.window <= 1:
            raise ValueError(f'window is {self.window}, wanted a share in (0, 1]')
        if not 0 <= self.things < 1:
            raise ValueError(f'things is {self.things}, wanted a share in [0, 1)')
        if not any(self.kinds.values()):
            raise ValueError(f'kinds is {self.kinds}, wanted one above 0 at least')
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise ValueError(f'kinds has {unknown}, wanted some of {KINDS}')


SOURCES = {'annotated': AnnotatedSource, 'chats': ChatSource, 'rooms': RoomSource}


@dataclass(frozen=True)
class TrainingConfig:
    """
    A training run.

    :param stage: 1 trains the head alone, 2 language model, output layer and head.
    :param thaw_vision: stage 2 trains the vision tower too.
    :param start: checkpoint to begin from: a folder or hub id of a Qwen3-VL, whose depth head
        begins fresh, or of a DepthVLM; '' builds the model from scratch.
    :param model: DepthVLMConfig's fields: all of them from scratch, else what differs from the
        start's.
    :param vocab_size: of the tokenizer that is learnt from the rooms' questions, from scratch.
    :param vocab_rooms: how many rooms' questions those are.
    :param sources: what is learnt from, AnnotatedSource, ChatSource or RoomSource; their shares
        leave something to those that have none.
    :param steps: optimiser steps in all; 0: one epoch over the sources that have no share.
    :param batch_size: samples a process takes at once.
    :param global_batch: samples a step, over all processes, reached by accumulating gradients;
        0: what the processes take at once.
    :param optimiser: 'adamw', or 'muon' for the layers' matrices beside AdamW for the rest, on
        weights that are not sharded.
    :param learning_rate: peak.
    :param schedule: 'cosine' to zero, or 'trapezoid': level, then linearly to zero.
    :param warm_up: steps of linear rise; below 1: their share of all steps.
    :param decay: share of the steps, the last ones, in which a trapezoid falls.
    :param betas: of AdamW.
    :param weight_decay: of matrices.
    :param clip: norm to which gradients are clipped.
    :param depth_weight: of the depth loss beside the language loss.
    :param log_l1_weight: of the log L1 depth loss beside SILog.
    :param naming_weight: of naming what each image token shows, see hints.
    :param gaze_weight: of looking at the thing that is spoken of, see hints.
    :param hint_images: of a run that begins from a checkpoint, how many of its images the hints'
        own layers, which no checkpoint holds, are fitted to before the first step, see settling.
    :param weigh_digits: weigh a number's digits in the language loss by their place, see hints.
    :param language_weight: of the language loss.
    :param precision: 'bf16' (autocast; weights stay float32), 'float32', or 'auto': bf16 where the
        device has instructions for it.
    :param gradient_checkpointing: recompute activations instead of keeping them.
    :param saved_dtype: of the checkpoint's weights.
    :param seed: of weights and data.
    :raises ValueError: a value outside its range.
    """

    stage: int = 2
    thaw_vision: bool = False
    start: str = ''
    model: dict = field(default_factory=dict)
    vocab_size: int = 640
    vocab_rooms: int = 400
    sources: tuple = (RoomSource(),)
    steps: int = 0
    batch_size: int = 8
    global_batch: int = 0
    optimiser: str = 'adamw'
    learning_rate: float = 2e-3
    schedule: str = 'cosine'
    warm_up: float = 200
    decay: float = 0.3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float = 1.0
    depth_weight: float = 1.0
    log_l1_weight: float = 0.0
    naming_weight: float = 0.0
    gaze_weight: float = 0.0
    hint_images: int = 0
    weigh_digits: bool = False
    language_weight: float = 1.0
    precision: str = 'auto'
    gradient_checkpointing: bool = False
    saved_dtype: str = 'bfloat16'
    seed: int = 42

    def __post_init__(self):
        for name, least in (('vocab_size', LEAST_VOCABULARY), ('vocab_rooms', 1),
                            ('batch_size', 1), ('seed', 0), ('weight_decay', 0),
                            *((f'{name}_weight', 0) for name in (
                                'depth', 'log_l1', 'naming', 'gaze', 'language')),
                            ('hint_images', 0), ('steps', 0), ('global_batch', 0), ('warm_up', 0)):
            if getattr(self, name) < least:
                raise ValueError(f'{name} is {getattr(self, name)}, wanted >= {least}')
        if self.seed > MOST_SEED:
            raise ValueError(f'seed is {self.seed}, wanted <= {MOST_SEED}')
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f'betas is {list(self.betas)}, wanted two numbers in [0, 1)')
        for name in ('learning_rate', 'clip'):
            if not getattr(self, name) > 0:
                raise ValueError(f'{name} is {getattr(self, name)}, wanted > 0')
        if not 0 <= self.decay <= 1:
            raise ValueError(f'decay is {self.decay}, wanted a share in [0, 1]')
        for name, known in (('stage', (1, 2)), ('schedule', SCHEDULES),
                            ('optimiser', OPTIMISERS), ('precision', PRECISIONS),
                            ('saved_dtype', SAVED_DTYPES)):
            if getattr(self, name) not in known:
                raise ValueError(f'{name} is {getattr(self, name)!r}, wanted one of {known}')
        self._check_stage()

    def _check_stage(self):
        """Check what does not go with the stage, or leaves it nothing to learn."""
        if self.stage == 1 and self.thaw_vision:
            raise ValueError('thaw_vision is true in stage 1, wanted stage 2: '
                             'stage 1 trains the depth head alone')
        if self.stage == 1 and self.optimiser == 'muon':
            raise ValueError("optimiser is 'muon' in stage 1, wanted 'adamw': "
                             'the depth head has none of the matrices that Muon takes')
        if not self.sources:
            raise ValueError('sources is empty, wanted at least one')
        if self.stage == 1 and all(isinstance(source, ChatSource) for source in self.sources):
            raise ValueError('sources are chats alone in stage 1, which learns depth: wanted '
                             'annotated images or rooms')
        taught = [f'{name}_weight' for name in ('depth', 'log_l1', *(
            ('language', 'naming', 'gaze') if self.with_language else ()))]
        if not any(getattr(self, name) for name in taught):
            raise ValueError(f'{", ".join(taught)} are 0 in stage {self.stage}, which leaves '
                             'nothing to learn; wanted one above 0')

    @property
    def with_language(self):
        """Tell whether answers are learnt."""
        return self.stage == 2

    @classmethod
    def load(cls, name, **changed):
        """
        Read a configuration: a YAML file, or the name of one in the tree ('nano').

        :param changed: fields that replace the file's.
        :raises ValueError: no such file, or a key or value that is not known.
        """
        path = (Path(name) if str(name).endswith(('.yaml', '.yml'))
                else CONFIGS / f'{name}.yaml')
        if not path.is_file():
            known = sorted(p.stem for p in CONFIGS.glob('*.yaml'))
            raise ValueError(f"config '{name}': no such file, wanted a .yaml or .yml, or one of "
                             f'{known}')
        try:
            values = yaml.load(path.read_text(), UniqueKeys)
            if not isinstance(values, dict | None):
                raise ValueError(f'holds {values!r}, wanted fields of TrainingConfig')
            values = {**(values or {}), **changed}
            if 'sources' in values:
                if not isinstance(values['sources'], list | tuple):
                    raise ValueError(f"sources is {values['sources']!r}, wanted a list")
                values['sources'] = tuple(read_source(s) for s in values['sources'])
            return read_record(cls, values)
        except (TypeError, ValueError, yaml.YAMLError) as e:
            raise ValueError(f'{path}: {e}') from e


class UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader, which would take the last of several equal keys without a word."""

    def construct_mapping(self, node, deep=False):
        """
        Return a mapping.

        :raises yaml.constructor.ConstructorError: a key that is there twice.
        """
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'{key.value!r} is there twice, wanted once', key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_record(kind, values):
    """
    Build a record of this kind out of a YAML mapping.

    :raises ValueError: a key that is not known, or one that is missing.
    """
    known = {f.name for f in fields(kind)}
    unknown = values.keys() - known
    if unknown:
        raise ValueError(f'{kind.__name__} has no field {sorted(unknown, key=str)}, wanted some '
                         f'of {sorted(known)}')
    values = {f.name: read_value(f.name, f.type, values[f.name])
              for f in fields(kind) if f.name in values}
    try:
        return kind(**values)
    except TypeError as e:
        raise ValueError(f'{kind.__name__}: {e}') from e


def read_value(name, kind, value):
    """
    Return a field's value as its type has it: numbers above all, alone or several.

    :param kind: the type.
    :raises ValueError: no number where one is wanted, or not as many as are wanted.
    """
    if kind in (int, float):
        return read_number(name, kind, value)
    if kind in (bool, str, dict) and not isinstance(value, kind):
        raise ValueError(f'{name} is {value!r}, wanted {WANTED[kind]}')
    if get_origin(kind) is UnionType:       # of something and None
        return None if value is None else read_value(name, get_args(kind)[0], value)
    if get_origin(kind) is tuple:
        parts, any_number = get_args(kind), Ellipsis in get_args(kind)
        if not isinstance(value, list | tuple) or not (any_number or len(value) == len(parts)):
            raise ValueError(f'{name} is {value!r}, wanted '
                             f'{"a list of" if any_number else len(parts)} numbers')
        parts = parts[:1] * len(value) if any_number else parts
        return tuple(read_value(name, each, part) for each, part in zip(parts, value))
    return tuple(value) if isinstance(value, list) else value


def read_number(name, kind, value):
    """
    Return a field's number; YAML takes 1e-4, which has no dot, for a word.

    :param kind: int or float.
    :raises ValueError: no number, or a fraction where a whole one is wanted.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    whole = kind is int
    if isinstance(value, bool) or not math.isfinite(number) or (whole and number % 1):
        raise ValueError(f"{name} is {value!r}, wanted a {'whole ' if whole else ''}number")
    return int(number) if whole else value if isinstance(value, int) else number


def read_source(values):
    """
    Build a source out of {'kind': 'annotated', 'chats' or 'rooms', ...}.

    :raises ValueError: another kind, an unknown key, or a share outside (0, 1].
    """
    if isinstance(values, tuple(SOURCES.values())):
        return values
    if not isinstance(values, dict):
        raise ValueError(f'a source is {values!r}, wanted fields with a kind')
    kind = values.get('kind')
    if kind not in SOURCES:
        raise ValueError(f'a source is of kind {kind!r}, wanted one of {sorted(SOURCES)}')
    source = read_record(SOURCES[kind], {k: v for k, v in values.items() if k != 'kind'})
    if source.share is not None and not 0 < source.share <= 1:
        raise ValueError(f'the share of a source is {source.share}, wanted one in (0, 1]')
    return source
