# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import importlib.util
import json
import os
from pathlib import Path
import shutil
import socket
import subprocess
import sys

from depthvlm_ros.benchmark import depth_bench, predictors
from depthvlm_ros.benchmark.depth_bench import main, read_jobs
from depthvlm_ros.synthetic.export import export
import numpy as np
from PIL import Image
import pytest
from safetensors.torch import load_file, save_file


@pytest.fixture(scope='module')
def rooms(tmp_path_factory):
    """Five exported rooms."""
    folder = tmp_path_factory.mktemp('bench') / 'rooms'
    export(folder, 5, width=80, height=60)
    return folder


@pytest.fixture
def run(capsys):
    """Run the command line; return its exit code, the JSON of its last line, and its errors."""
    def run(folder, *options, annotations=None):
        code = main(['--annotations', *map(str, annotations or [folder / 'annotations.jsonl']),
                     '--rgb-root', str(folder), '--model', 'constant', '--device', 'cpu',
                     '--workers', '0', *map(str, options)])
        out, err = capsys.readouterr()
        return code, json.loads(out.splitlines()[-1]) if out else None, err
    return run


class Oracle:
    """Knows the depth of the exported images that it is shown, times `factor`."""

    @classmethod
    def load(cls, source, device='auto'):
        folder, _, factor = source.partition('*')
        oracle = cls()
        oracle.depth_m = {
            np.array(Image.open(path)).tobytes():
                np.array(Image.open(Path(folder) / 'depth' / path.name)) / 4000
            for path in (Path(folder) / 'rgb').iterdir()}
        oracle.factor = float(factor or 1)
        return oracle

    def depth(self, rgb, intrinsics):
        return self.depth_m[rgb.tobytes()] * self.factor


def oracle(folder):
    return f'{__name__}.Oracle:{folder}'


@pytest.mark.parametrize('protocol', ['sparse', 'dense'])
def test_the_truth_is_judged_perfect(rooms, run, protocol):
    code, result, _ = run(rooms, '--protocol', protocol, '--model', oracle(rooms))
    assert code == 0
    figures = result['datasets']['rooms']
    assert figures['images'] == 5
    assert figures['skipped'] == {}
    assert (figures['delta1'], figures['coverage']) == (1.0, 1.0)
    assert figures['abs_rel'] < 1e-4
    assert result['average'] == {name: figures[name] for name in depth_bench.FIGURES}


def test_a_wrong_scale_shows_as_that(rooms, run):
    _, result, _ = run(rooms, '--protocol', 'dense', '--model', f'{oracle(rooms)}*1.2')
    assert result['average']['delta1'] == 1.0
    assert result['average']['abs_rel'] == pytest.approx(0.2, abs=1e-4)
    assert result['average']['silog'] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(('protocol', 'as_released'), [
    ('sparse', False), ('dense', False), ('dense', True)])
def test_two_metres_against_ones_own_arithmetic(rooms, run, protocol, as_released):
    shares = []
    for line in (rooms / 'annotations.jsonl').read_text().splitlines():
        fields = json.loads(line)
        stored = np.array(Image.open(rooms / fields['depth_path'])) / fields['depth_scale']
        truth = np.array(fields['depth']) if protocol == 'sparse' else stored
        shares.append(np.mean(np.maximum(truth / 2, 2 / truth) < 1.25))
    options = ['--as-released'] if as_released else []
    _, result, _ = run(rooms, '--protocol', protocol, *options)
    # The released reader resizes the truth, so that its share is the same only nearly.
    tolerance = 0.003 if as_released else 1e-9
    assert result['average']['delta1'] == pytest.approx(np.mean(shares), abs=tolerance)
    assert list(result['average']) == (['delta1'] if as_released else list(depth_bench.FIGURES))


def test_datasets_are_averaged_one_by_one(bench, run):
    near = [bench.add(f'n{i}', [[2.0, 2.0]]) for i in range(3)]
    far = [bench.add('f', [[2.0, 40.0]])]
    files = [bench.annotate('nyuv2.jsonl', *near), bench.annotate('eth3d.jsonl', *far)]
    _, result, _ = run(bench.root, '--protocol', 'dense', annotations=files)
    assert {name: figures['delta1'] for name, figures in result['datasets'].items()} == {
        'NYUv2': 1.0, 'ETH3D': 0.5}
    assert result['average']['delta1'] == 0.75


def test_a_broken_image_and_an_empty_map_are_counted(bench, run):
    records = [bench.add(name, [[2.0, 2.0]]) for name in 'abcd']
    (bench.root / 'rgb/a.png').write_bytes(b'')
    bench.png('depth/b.png', [[0, 0]])
    (bench.root / 'depth/c.png').unlink()
    code, result, err = run(bench.root, '--protocol', 'dense',
                            annotations=[bench.annotate('nyuv2.jsonl', *records)])
    assert code == 0
    figures = result['datasets']['NYUv2']
    assert figures['images'] == 1
    assert figures['skipped'] == {'image': 1, 'empty': 1, 'depth': 1}
    assert all(f'{name}.png' in err for name in 'abc')


def test_nothing_judged_is_no_success(bench, run):
    fields = bench.add('a', [[0.0]])
    code, result, _ = run(bench.root, '--protocol', 'dense',
                          annotations=[bench.annotate('nyuv2.jsonl', fields)])
    assert code == 1
    assert result['average']['delta1'] is None


class Wrong:
    """No predictor: what it returns has another shape."""

    @classmethod
    def load(cls, source, device='auto'):
        return cls()

    def depth(self, rgb, intrinsics):
        return np.ones((5, 5))


def test_a_predictor_of_another_shape_is_told(rooms, run, monkeypatch, capsys):
    monkeypatch.setitem(predictors.KINDS, 'wrong', Wrong)
    assert depth_bench.main(['--annotations', str(rooms / 'annotations.jsonl'), '--rgb-root',
                             str(rooms), '--model', 'wrong', '--workers', '0']) == 2
    assert 'the predictor returned shape (5, 5), wanted' in capsys.readouterr().err


class Counting(predictors.Constant):
    """A constant that counts the images it is shown, and stops after some."""

    shown = 0
    stop_after = 100

    def depth(self, rgb, intrinsics):
        if Counting.shown == Counting.stop_after:
            raise KeyboardInterrupt
        Counting.shown += 1
        return super().depth(rgb, intrinsics)


@pytest.fixture
def counting(monkeypatch):
    monkeypatch.setitem(predictors.KINDS, 'counting', Counting)
    monkeypatch.setattr(Counting, 'shown', 0)
    return Counting


def test_a_stopped_run_goes_on(rooms, run, tmp_path, counting, monkeypatch):
    _, straight, _ = run(rooms, '--model', 'constant')
    options = '--model', 'counting', '--out', tmp_path / 'out.jsonl'
    monkeypatch.setattr(counting, 'stop_after', 3)
    with pytest.raises(KeyboardInterrupt):
        run(rooms, *options)
    with open(tmp_path / 'out.jsonl', 'a') as file:
        file.write('{"dataset": "ro')  # killed in the middle of a line
    monkeypatch.setattr(counting, 'stop_after', 100)
    _, result, _ = run(rooms, *options)
    assert counting.shown == 5
    assert result['datasets'] == straight['datasets']
    lines = [json.loads(line) for line in (tmp_path / 'out.jsonl').read_text().splitlines()]
    assert len(lines) == 1 + 5
    assert json.loads((tmp_path / 'out.jsonl.summary.json').read_text()) == result
    run(rooms, *options)
    assert counting.shown == 5


def test_what_was_skipped_is_tried_again(bench, run, tmp_path):
    path = bench.annotate('nyuv2.jsonl', bench.add('a', [[2.0]]), bench.add('b', [[2.0]]))
    (bench.root / 'rgb/b.png').rename(tmp_path / 'b.png')
    options = '--protocol', 'dense', '--out', tmp_path / 'out.jsonl'
    _, result, _ = run(bench.root, *options, annotations=[path])
    assert result['datasets']['NYUv2']['skipped'] == {'image': 1}
    (tmp_path / 'b.png').rename(bench.root / 'rgb/b.png')
    _, result, _ = run(bench.root, *options, annotations=[path])
    assert result['datasets']['NYUv2']['skipped'] == {}
    assert result['datasets']['NYUv2']['images'] == 2


def test_results_of_another_run_are_not_mixed_in(rooms, run, tmp_path):
    run(rooms, '--out', tmp_path / 'out.jsonl')
    code, _, err = run(rooms, '--out', tmp_path / 'out.jsonl', '--protocol', 'dense')
    assert code == 2
    assert "'sparse'" in err and 'another --out' in err
    code, _, err = run(rooms, '--out', tmp_path / 'out.jsonl', '--no-resume')
    assert code == 2


def test_results_of_a_model_loaded_otherwise_are_not_mixed_in(rooms, run, tmp_path,
                                                                tiny_checkpoint):
    options = '--model', tiny_checkpoint, '--limit', '1', '--out', tmp_path / 'out.jsonl'
    _, plain, _ = run(rooms, *options)
    code, _, err = run(rooms, *options, '--max-image-tokens', '6')
    assert code == 2 and "'max_image_tokens': 6" in err
    coarse = run(rooms, *options[:-1], tmp_path / 'coarse.jsonl', '--max-image-tokens', '6')[1]
    assert coarse['loading']['max_image_tokens'] == 6
    assert coarse['average']['abs_rel'] != plain['average']['abs_rel']


def test_results_of_other_annotations_and_roots_are_not_mixed_in(bench, run, tmp_path):
    path = bench.annotate('nyuv2.jsonl', bench.add('a', [[2.0]]))
    options = '--protocol', 'dense', '--out', tmp_path / 'out.jsonl'
    assert run(bench.root, *options, annotations=[path])[0] == 0
    moved = shutil.copytree(bench.root, tmp_path / 'moved')
    code, _, err = run(moved, *options, annotations=[path])
    assert code == 2 and "'roots'" in err and 'another --out' in err
    bench.annotate('nyuv2.jsonl', bench.add('b', [[3.0]]))
    code, _, err = run(bench.root, *options, annotations=[path])
    assert code == 2 and "'annotations'" in err and 'another --out' in err


def test_the_released_reader_takes_no_bound_of_tokens(rooms, run):
    code, _, err = run(rooms, '--as-released', '--max-image-tokens', '20')
    assert code == 2 and '--max-image-tokens with --as-released' in err


@pytest.mark.parametrize('kind', ['', 'depthvlm:'])
def test_results_before_more_training_are_not_mixed_in(
        rooms, run, tiny_checkpoint, tmp_path, kind):
    model = shutil.copytree(tiny_checkpoint, tmp_path / 'model')
    options = '--model', f'{kind}{model}', '--limit', '1', '--out', tmp_path / 'out.jsonl'
    assert run(rooms, *options)[0] == run(rooms, *options)[0] == 0
    weights = load_file(model / 'model.safetensors')
    key = next(iter(weights))
    save_file({**weights, key: weights[key] * 2}, model / 'model.safetensors')
    code, _, err = run(rooms, *options)
    assert code == 2 and "'weights'" in err and 'another --out' in err


@pytest.mark.slow
def test_workers_change_nothing(rooms, run):
    _, alone, _ = run(rooms, '--protocol', 'dense')
    _, shared, _ = run(rooms, '--protocol', 'dense', '--workers', '1')
    assert shared['datasets'] == alone['datasets']


def test_labels_along_the_ray_though_tagged_z(bench, run):
    fields = bench.add('a', [[2.0, 2.0, 3.0]], fx_px=0.5)
    path = bench.annotate('argoverse.jsonl', fields)
    _, tagged, _ = run(bench.root, '--protocol', 'dense', annotations=[path])
    assert tagged['datasets']['Argoverse2']['delta1'] == pytest.approx(2 / 3)
    # Off the axis by a px of f = 0.5 px, depth is 1 / sqrt(5) of the distance: .9 and 1.3 m.
    _, told, _ = run(bench.root, '--protocol', 'dense', '--euclidean', 'Argoverse2',
                     annotations=[path])
    assert told['datasets']['Argoverse2']['delta1'] == pytest.approx(1 / 3)
    code, _, err = run(bench.root, '--euclidean', 'Waymo', annotations=[path])
    assert code == 2 and "'Waymo'" in err and 'Argoverse2' in err


def test_roots_belong_to_files(rooms, tmp_path):
    path = rooms / 'annotations.jsonl'
    with pytest.raises(ValueError, match='2 roots for 1'):
        read_jobs([path], ['a', 'b'], ['a'])
    with pytest.raises(ValueError, match='another file of the same name'):
        read_jobs([path, path], ['a'], ['a'])
    (tmp_path / 'empty.jsonl').write_text('')
    with pytest.raises(ValueError, match=r'empty\.jsonl: no records'):
        read_jobs([tmp_path / 'empty.jsonl'], ['a'], ['a'])
    assert len(read_jobs([path], ['a'], ['a'], limit=2)) == 2


def test_the_model_itself_is_judged(rooms, run, tiny_checkpoint):
    for options in ([], ['--as-released']):
        code, result, _ = run(rooms, '--model', tiny_checkpoint, '--limit', '2', *options)
        assert code == 0
        assert result['datasets']['rooms']['images'] == 2
        assert 0 <= result['average']['delta1'] < 0.9


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('accelerate') is None,
                    reason='accelerate is not installed')
def test_two_processes_share_the_images(rooms, run, tmp_path):
    _, alone, _ = run(rooms, '--protocol', 'dense')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    command = [sys.executable, '-m', 'depthvlm_ros.benchmark.depth_bench', '--annotations',
               rooms / 'annotations.jsonl', '--rgb-root', rooms, '--model', 'constant',
               '--protocol', 'dense', '--device', 'cpu', '--workers', '0',
               '--out', tmp_path / 'out.jsonl']
    children = [subprocess.Popen(
        [str(word) for word in command], cwd=Path(__file__).parents[2], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, 'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': '2',
             'GLOO_SOCKET_IFNAME': 'lo', 'MASTER_ADDR': '127.0.0.1',
             'MASTER_PORT': str(port)}) for rank in range(2)]
    try:
        (out, err), (quiet, other) = [child.communicate(timeout=240) for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0, 0], err + other
    assert quiet == ''
    assert json.loads(out.splitlines()[-1])['datasets'] == alone['datasets']
    assert len((tmp_path / 'out.jsonl').read_text().splitlines()) == 1 + 3
    assert len((tmp_path / 'out.jsonl.rank1').read_text().splitlines()) == 1 + 2


def test_several_processes_without_accelerate_say_so(rooms, run, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setitem(sys.modules, 'accelerate', None)
    code, _, err = run(rooms)
    assert code == 2
    assert 'pip install accelerate' in err


def test_a_negative_limit_is_refused(capsys):
    with pytest.raises(SystemExit, match='2'):
        depth_bench.parse(['--annotations', 'a.jsonl', '--rgb-root', '.', '--limit', '-3'])
    assert "argument --limit: '-3', wanted >= 0" in capsys.readouterr().err
