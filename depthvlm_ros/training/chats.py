# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Samples out of question-answer files in the common chat format, so that language survives.

A line holds `messages` (role and content) or `conversations` (from and value), and names its
image, if it has one, in `image` or `images`, or as a part of the content. The image stands before
the first question, wherever its tag was: this model reads it there, and its system text is its
own.
"""

from dataclasses import dataclass
from pathlib import Path

from depthvlm_ros.benchmark.annotations import (
    camera_of,
    check_text,
    parse_positive,
    read_rgb,
    RecordError,
)
from depthvlm_ros.model.lengths import scaled
from depthvlm_ros.training.jsonlines import JsonLines
from depthvlm_ros.training.samples import Sample

IMAGE_TAG, VIDEO_TAG = '<image>', '<video>'
ASKING, TELLING = ('user', 'human'), ('assistant', 'gpt')


@dataclass(frozen=True)
class Chat:
    """
    A conversation.

    :param turns: list of (question, answer).
    :param image: path of its image, '' for none.
    :param fx_px: focal length of the image; None where not known.
    """

    turns: list
    image: str = ''
    fx_px: float | None = None


def read_chat(fields):
    """
    Read a conversation out of a JSON object.

    :raises ValueError: another form, turns that do not alternate, more than one image, or one
        that is spoken of and not given.
    """
    messages, images = messages_of(fields), images_of(fields)
    spoken, tags = [], 0
    for message in messages:
        role = message.get('role', message.get('from'))
        text, shown = read_content(message.get('content', message.get('value')))
        images += [image for image in shown if image not in images]
        check_text(text, 'a message')
        if VIDEO_TAG in text:
            raise ValueError(f'says {VIDEO_TAG}, wanted images')
        tags += text.count(IMAGE_TAG)
        if role in TELLING and (shown or not text.replace(IMAGE_TAG, '').strip()):
            raise ValueError(f'{role} says {text!r} and shows {shown}, wanted words alone')
        if role != 'system':
            spoken.append((role, text.replace(IMAGE_TAG, '').strip()))
    if len(images) > 1:
        raise ValueError(f'has {len(images)} images, wanted at most one')
    if not all(isinstance(image, str) for image in images):
        raise ValueError(f'has the image {images[0]!r}, wanted a path')
    if tags > len(images):
        raise ValueError(f'says {IMAGE_TAG} {tags} times and has {len(images)} images, wanted as '
                         'many in image or images')
    asked, told = spoken[0::2], spoken[1::2]
    if not spoken or len(asked) != len(told) or not (
            all(role in ASKING for role, _ in asked)
            and all(role in TELLING for role, _ in told)):
        raise ValueError(f'has the turns {[role for role, _ in spoken]}, '
                         'wanted user and assistant in turn')
    return Chat([(question, answer) for (_, question), (_, answer) in zip(asked, told)],
                images[0] if images else '', parse_positive(fields.get('fx'), 'fx', 'a chat'))


def messages_of(fields):
    """
    Return the messages of a JSON object.

    :return: list of dicts.
    :raises ValueError: another form.
    """
    if not isinstance(fields, dict):
        raise ValueError(f'is {fields!r}, wanted an object with messages or conversations')
    messages = fields.get('messages') or fields.get('conversations')
    if not isinstance(messages, list):
        raise ValueError(f'has {sorted(fields)}, wanted messages or conversations')
    for message in messages:
        if not isinstance(message, dict):
            raise ValueError(f'has the message {message!r}, wanted one with role and content')
    return messages


def images_of(fields):
    """
    Return what a JSON object names as its images, beside those that its messages show.

    :return: list.
    :raises ValueError: a video, or another form.
    """
    if fields.get('video') or fields.get('videos'):
        raise ValueError('has a video, wanted images')
    images = fields.get('images') or fields.get('image') or []
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list):
        raise ValueError(f'has the image {images!r}, wanted a path')
    return list(images)


def read_content(content):
    """
    Read what a message says.

    :param content: a string, or a list of parts of type 'text' or 'image'.
    :return: (text, list of image paths).
    :raises ValueError: another form.
    """
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list):
        raise ValueError(f'a message holds {type(content).__name__}, wanted text or parts')
    text, images = '', []
    for part in content:
        if not isinstance(part, dict):
            raise ValueError(f'a message has the part {part!r}, wanted an object with a type')
        kind = part.get('type', 'image' if 'image' in part else 'text')
        if kind == 'text' and isinstance(part.get('text'), str):
            text += part['text']
        elif kind == 'image' and isinstance(part.get('image'), str):
            images.append(part['image'])
        elif kind == 'image' and not any(part.get(name) for name in ('image', 'url', 'path')):
            text += IMAGE_TAG   # it stands for the one in image or images
        else:
            raise ValueError(f'a message has the part {part!r}, wanted text, or an image by its '
                             "path in 'image'")
    return text, images


class Chats:
    """
    The conversations of one file.

    :param source: config.ChatSource.
    :param root: folder that its paths are relative to.
    :param encoder: samples.Encoder.
    """

    def __init__(self, source, root, encoder):
        self.lines = JsonLines(Path(root) / source.file)
        self.image_root = Path(root) / source.image_root
        self.max_image_tokens = source.max_image_tokens
        self.encoder = encoder

    def __len__(self):
        return len(self.lines)

    @property
    def identity(self):
        """Return what tells what is learnt here from other files."""
        return self.lines.identity

    def sample(self, index):
        """
        Read a conversation with its image.

        An image whose focal length is not known is taken as one at the canonical focal length:
        it keeps its size, and no depth is learnt from it. Where the model's words are in the
        metres of the network's image (canonical_words), so are the answers' here.

        :return: Sample.
        :raises RecordError: a record that cannot be read.
        """
        where = f'{self.lines.path.name} line {self.lines.line(index) + 1}'
        try:
            chat = read_chat(self.lines[index])
        except (ValueError, AttributeError, TypeError) as e:
            raise RecordError('record', f'{where}: {e}') from e
        if not chat.image:
            return Sample(self.encoder.bounded(self.encoder.text_row([chat.turns]), where))
        rgb = read_rgb(self.image_root / chat.image)
        camera = camera_of(rgb, chat.fx_px, self.encoder.config.canonical_fx, f'{where}: fx')
        try:
            pixels, grid, plan = self.encoder.image(rgb, camera, self.max_image_tokens)
        except (ValueError, TypeError) as e:
            raise RecordError('image', f'{where}: {e}') from e
        turns = chat.turns
        if self.encoder.config.canonical_words:     # as they will be multiplied again
            turns = [(question, scaled(answer, 1 / plan.depth_scale))
                     for question, answer in turns]
        row = self.encoder.image_row(grid[0].tolist(), [turns])
        return Sample(self.encoder.bounded(row, where), pixels, grid)
