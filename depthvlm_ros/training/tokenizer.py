# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The embedded model's tokenizer: Qwen's kind (byte-level BPE, digits apart), few words."""

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import prompt
from depthvlm_ros.synthetic import Scene
from tokenizers import AddedToken, decoders, pre_tokenizers, Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ('<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|vision_start|>',
                  '<|vision_end|>', '<|image_pad|>', '<|video_pad|>')
# Words with the space before them, single digits, runs of marks, white space.
WORDS = Regex(r' ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+')

# What tokenizer.apply_chat_template renders: one user turn with images and text, as Qwen3-VL's.
CHAT_TEMPLATE = (
    "{%- if messages[0].role != 'system' -%}<|im_start|>system\n" + prompt.SYSTEM_TEXT
    + "<|im_end|>\n{% endif -%}"
    "{%- for m in messages -%}<|im_start|>{{ m.role }}\n"
    "{%- if m.content is string -%}{{ '\n' + m.content }}{%- else -%}{{ '\n' }}"
    "{%- for c in m.content -%}{%- if c.type == 'image' -%}"
    "<|vision_start|><|image_pad|><|vision_end|>{%- else -%}{{ c.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}<|im_end|>{{ '\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant{{ '\n' }}{%- endif -%}")


def train_tokenizer(texts, vocab_size):
    """
    Learn a tokenizer from texts; whatever it has no word for falls back to bytes.

    :param texts: an iterable of strings.
    :param vocab_size: of everything, special tokens included.
    :return: transformers' PreTrainedTokenizerFast.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(WORDS, behavior='isolated'),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(vocab_size=vocab_size - len(SPECIAL_TOKENS), min_frequency=2,
                         initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    fixed = (prompt.SYSTEM_TEXT, 'system', 'user', 'assistant')
    tokenizer.train_from_iterator([*texts, *fixed * 10], trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token='<|im_end|>', pad_token='<|endoftext|>',
        chat_template=CHAT_TEMPLATE, clean_up_tokenization_spaces=False,
        model_max_length=4096)


def room_texts(rooms):
    """Yield the questions and answers of some training rooms, seen small."""
    camera = Intrinsics.centred(80, 60, 64.0)
    for seed in range(rooms):
        frame = Scene.random(seed, split='train').render(camera)
        for question, answer, _ in frame.questions(seed):
            yield question
            yield answer
