# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The conversation in Qwen's chat format, cut where the image ends.

What stands before the question (system text and image) is the same for every question about a
frame, so its key-value cache serves all of them; and since attention is causal, the depth, which
is read at the image tokens, does not depend on the question at all.
"""

from dataclasses import dataclass

SYSTEM_TEXT = 'You are a helpful assistant.'

BEFORE_IMAGE = f'<|im_start|>system\n{SYSTEM_TEXT}<|im_end|>\n<|im_start|>user\n<|vision_start|>'
AFTER_IMAGE = '<|vision_end|>'
AFTER_QUESTION = '<|im_end|>\n<|im_start|>assistant\n'
AFTER_ANSWER = '<|im_end|>'
NEXT_TURN = '\n<|im_start|>user\n'  # between an answer and the question after it
IMAGE_TOKEN = '<|image_pad|>'
STOP_TOKENS = ('<|im_end|>', '<|endoftext|>')


@dataclass(frozen=True)
class Prompt:
    """
    Token ids of the conversation's fixed parts.

    :param before_image: system text and the user's turn up to the image.
    :param image: the image token, one for each 32 x 32 px.
    :param after_image: what closes the image.
    :param after_question: what closes the question and opens the answer.
    :param after_answer: what closes the answer.
    :param next_turn: what stands between an answer and the question after it.
    :param stops: tokens that end an answer.
    """

    before_image: tuple[int, ...]
    image: int
    after_image: tuple[int, ...]
    after_question: tuple[int, ...]
    after_answer: tuple[int, ...]
    next_turn: tuple[int, ...]
    stops: frozenset[int]

    @classmethod
    def of(cls, tokenizer, image_token_id=None):
        """
        Read the parts off a checkpoint's tokenizer.

        :param image_token_id: what config.json says, where there is one.
        :raises ValueError: a tokenizer without Qwen's special tokens, or with another image token.
        """
        def encode(text):
            # Told, as a checkpoint's tokenizer may be set otherwise.
            return tuple(tokenizer(
                text, add_special_tokens=False, split_special_tokens=False)['input_ids'])

        for token in ('<|im_start|>', '<|vision_start|>', IMAGE_TOKEN, AFTER_IMAGE, AFTER_ANSWER):
            if len(encode(token)) != 1:
                raise ValueError(f'the tokenizer has no special token {token}, '
                                 'wanted that of Qwen3-VL')
        image, = encode(IMAGE_TOKEN)
        if image_token_id not in (None, image):
            raise ValueError(f"the tokenizer's image token is {image}, config.json says "
                             f'{image_token_id}; wanted the same')
        stops = [ids[0] for ids in map(encode, STOP_TOKENS) if len(ids) == 1]
        return cls(encode(BEFORE_IMAGE), image, encode(AFTER_IMAGE), encode(AFTER_QUESTION),
                   encode(AFTER_ANSWER), encode(NEXT_TURN), frozenset(stops))

    def prefix(self, image_tokens):
        """Return the ids up to the image's end, the same for every question."""
        return [*self.before_image, *[self.image] * image_tokens, *self.after_image]


def encode_words(tokenizer, text):
    """
    Encode a person's words.

    Special tokens written out in the text stay plain text, so that no question can close its own
    turn or bring an image of its own.
    """
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)['input_ids']
