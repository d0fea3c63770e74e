# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
import math
import subprocess
import sys
import time

from builtin_interfaces.msg import Duration, Time
from depthvlm_ros.model import Predictor
from depthvlm_ros.msg import Pixel, SpatialAnswer, SpatialReference
from depthvlm_ros.nodes import waiting
from depthvlm_ros.nodes.conversions import info_from_intrinsics
from depthvlm_ros.spatial import measure_box, measure_pixel
from depthvlm_ros.srv import SpatialQuery
from depthvlm_ros.synthetic import Scene
from depthvlm_ros.synthetic.wording import DEPTH_ANSWER, DEPTH_QUESTION
import numpy as np
import pytest
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool

pytestmark = pytest.mark.ros

DEPTH = 'depthvlm/depth/image'
FRAME = 'camera_optical_frame'
STATUS = SpatialQuery.Response
WORDS = 'How far is the red box?'


def ask_later(robot, **fields):
    """Ask without waiting; return the future and what must be kept alive."""
    client = robot.node.create_client(SpatialQuery, 'depthvlm/spatial_query')
    assert client.wait_for_service(60.0)
    return client.call_async(SpatialQuery.Request(**{'question': WORDS, **fields}))


def test_inactive_until_active(make_depth_node, make_robot):
    node, robot = make_depth_node(), make_robot()
    steps = {'unconfigured': node.trigger_configure, 'inactive': node.trigger_activate,
             'active': node.trigger_deactivate}
    for state, step in steps.items():
        answer = robot.ask()
        assert node.state == state
        assert answer.status == (STATUS.NO_IMAGE if state == 'active' else STATUS.INACTIVE)
        assert state == 'active' or state in answer.message
        step()
    assert robot.ask().status == STATUS.INACTIVE


def test_an_answer_is_the_models_about_the_newest_image(active, checkpoint):
    node, robot = active()
    robot.show(node, sec=1, seed=3)
    robot.show(node, sec=7, seed=4)
    answer = robot.ask(max_tokens=9)
    predictor = Predictor.from_pretrained(str(checkpoint), device='cpu')
    expected = predictor.ask(predictor.look(robot.picture(4), robot.camera), WORDS, max_tokens=9)
    assert answer.status == STATUS.OK
    assert answer.answer == expected.text
    assert answer.tokens == expected.tokens > 0
    assert answer.header == Header(stamp=Time(sec=7), frame_id=FRAME)
    assert (answer.points_frame, answer.camera) == (FRAME, 'camera')
    assert answer.model == str(checkpoint)
    assert answer.latency.sec + answer.latency.nanosec * 1e-9 > 0
    assert not answer.references


def test_pixels_and_box_of_the_request_are_measured(active, checkpoint):
    node, robot = active()
    robot.show(node)
    answer = robot.ask(question='', pixels=[Pixel(u=10.25, v=20.5), Pixel(u=127.4, v=-0.5)],
                 box=[20.0, 30.0, 60.0, 70.0])
    assert (answer.status, answer.answer, answer.tokens) == (STATUS.OK, '', 0)
    predictor = Predictor.from_pretrained(str(checkpoint))
    depth_m = predictor.look(robot.picture(), robot.camera).depth_m
    expected = [measure_pixel(depth_m, robot.camera, 10.25, 20.5),
                measure_pixel(depth_m, robot.camera, 127.4, -0.5),
                measure_box(depth_m, robot.camera, (20.0, 30.0, 60.0, 70.0))]
    for reference, wanted in zip(answer.references, expected, strict=True):
        assert reference.source == SpatialReference.REQUEST
        assert reference.valid
        assert (reference.pixel.u, reference.pixel.v) == (wanted.u, wanted.v)
        assert reference.depth == pytest.approx(wanted.depth_m, rel=1e-4)
        assert reference.depth_spread == pytest.approx(wanted.depth_spread_m, rel=1e-2)
        point = (reference.point.x, reference.point.y, reference.point.z)
        assert point == pytest.approx(wanted.point_m, rel=1e-4)
    assert [reference.is_box for reference in answer.references] == [False, False, True]
    assert list(answer.references[2].box) == [20, 30, 60, 70]


def test_an_answer_costs_one_pass_and_the_second_none(active):
    node, robot = active()
    passes = []
    node._predictor.model.model.visual.register_forward_hook(lambda *_: passes.append(1))
    robot.show(node)
    assert robot.ask().status == STATUS.OK
    assert robot.ask(question='What is left of it?').status == STATUS.OK
    assert len(passes) == 1


def test_the_executor_is_woken_as_soon_as_an_answer_is_there(active, monkeypatch):
    beat_s = 8.0    # there for the worst case
    monkeypatch.setattr(waiting, 'PULSE_S', beat_s)
    node, robot = active()
    robot.show(node)
    latencies = [robot.ask(max_tokens=1).latency for _ in range(3)]
    assert np.median([each.sec + each.nanosec * 1e-9 for each in latencies]) < beat_s / 2


def test_what_came_before_any_usable_image(active):
    node, robot = active()
    assert robot.ask().status == STATUS.NO_IMAGE
    robot.publish(robot.picture(), None, Time(sec=1))
    assert robot.until(lambda: 'no camera_info' in robot.ask().message)
    robot.show(node)
    elsewhere = robot.ask(camera='rear')
    assert (elsewhere.status, "'rear'" in elsewhere.message) == (STATUS.NO_IMAGE, True)
    assert elsewhere.camera == ''
    here = robot.ask(camera='camera')
    assert (here.status, here.camera) == (STATUS.OK, 'camera')


def test_a_broken_newest_image_is_no_image(active):
    node, robot = active()
    info = info_from_intrinsics(robot.camera, Header(stamp=Time(sec=1)))
    robot.infos.publish(info)
    robot.images.publish(Image(header=info.header, height=96, width=128, step=384,
                               encoding='rgb8', data=[1]))
    assert robot.until(lambda: node.stream.first.newest is not None)
    answer = robot.ask()
    assert answer.status == STATUS.NO_IMAGE
    assert '1 bytes' in answer.message


def test_an_old_image_is_stale_by_the_nodes_clock(active):
    node, robot = active()
    robot.show(node, sec=1)
    answer = robot.ask(max_age=Duration(sec=5))
    assert answer.status == STATUS.STALE_IMAGE
    assert 'use_sim_time' in answer.message
    robot.show(node, sec=node.get_clock().now().nanoseconds // 10**9)
    assert robot.ask(max_age=Duration(sec=30)).status == STATUS.OK


def test_one_question_too_many_is_busy(active, hold):
    node, robot = active(max_questions=2)
    robot.show(node)
    gate = hold(node)
    futures = [ask_later(robot) for _ in range(3)]
    assert robot.until(lambda: any(future.done() for future in futures))
    gate.set()
    assert robot.until(lambda: all(future.done() for future in futures))
    statuses = sorted(future.result().status for future in futures)
    assert statuses == [STATUS.OK, STATUS.OK, STATUS.BUSY]
    assert robot.ask().status == STATUS.OK, 'there is room again'


def test_a_timeout_returns_the_words_so_far(active, hold):
    node, robot = active()
    robot.show(node)
    assert robot.ask().status == STATUS.OK
    tokens = []
    node._predictor.model.lm_head.register_forward_pre_hook(lambda *_: tokens.append(1))
    hold(node, 'token', after=5)
    future = ask_later(robot, max_tokens=100, timeout=Duration(sec=600))
    assert robot.until(lambda: len(tokens) > 5)
    node.stream.worker.end_overdue(math.inf)
    assert robot.until(future.done)
    answer = future.result()
    assert answer.status == STATUS.TIMEOUT
    assert 1 <= answer.tokens <= 6
    assert answer.answer


def test_a_timeout_holds_even_while_the_model_hangs(active, hold):
    node, robot = active()
    robot.show(node)
    gate = hold(node)
    answer = robot.ask(timeout=Duration(nanosec=300_000_000))
    assert answer.status == STATUS.TIMEOUT
    assert answer.header.stamp.sec == 1
    gate.set()
    assert robot.until(lambda: node.stream.worker.open_questions == 0)
    assert robot.ask().status == STATUS.OK


def test_deactivating_in_mid_answer_cancels_it(active, slow_down):
    node, robot = active()
    robot.show(node)
    slow_down(node, token_s=0.1)
    future = ask_later(robot, max_tokens=1000)
    assert robot.until(lambda: any(
        question.tokens for question in list(node.stream.worker._questions)))
    assert node.trigger_deactivate().name == 'SUCCESS'
    assert robot.until(future.done)
    answer = future.result()
    assert answer.status == STATUS.CANCELLED
    assert answer.tokens > 0
    assert answer.header.stamp.sec == 1


def test_a_failing_model_is_said_and_the_node_goes_on(active):
    node, robot = active()
    robot.show(node)

    def fail(*_):
        raise RuntimeError('out of memory')
    hook = node._predictor.model.lm_head.register_forward_hook(fail)
    answer = robot.ask()
    assert answer.status == STATUS.MODEL_FAILURE
    assert 'out of memory' in answer.message
    hook.remove()
    assert robot.ask().status == STATUS.OK


def test_questions_and_answers_are_published(active):
    node, robot = active(topics=[('depthvlm/answers', SpatialAnswer)])
    assert robot.until(lambda: node.stream.answers.get_subscription_count() == 1)
    assert robot.ask(question='').status == STATUS.BAD_QUESTION
    robot.show(node, sec=4)
    answer = robot.ask(pixels=[Pixel(u=1.0, v=1.0)])
    assert robot.until(lambda: len(robot.got['depthvlm/answers']) == 2)
    bad, good = robot.got['depthvlm/answers']
    assert (bad.question, bad.status) == ('', SpatialAnswer.BAD_QUESTION)
    assert good.question == WORDS
    for name in SpatialQuery.Response.get_fields_and_field_types():
        assert getattr(good, name) == getattr(answer, name), name


def test_the_depth_request_in_words_gets_the_trained_reply(active):
    node, robot = active(topics=[(DEPTH, Image)], model='nano', max_tokens=64)
    room = Scene.random(0).render(robot.camera).rgb
    robot.picture = lambda seed: room       # of noise nano may say anything
    robot.show(node)
    answer = robot.ask(question=DEPTH_QUESTION)
    assert (answer.status, answer.answer) == (STATUS.OK, DEPTH_ANSWER)
    assert robot.until(lambda: robot.got[DEPTH])


def test_questions_are_answered_while_the_stream_is_paused(active):
    node, robot = active(topics=[(DEPTH, Image)])
    robot.call(SetBool, 'depthvlm/enable', SetBool.Request(data=False))
    robot.show(node)
    assert robot.ask().status == STATUS.OK
    statistics = node.stream.first.statistics
    assert (statistics.not_wanted, statistics.published) == (1, 0)
    assert not robot.got[DEPTH]


def test_the_answer_is_about_what_was_newest_when_the_question_came(active, hold, checkpoint):
    node, robot = active()
    robot.show(node, sec=1, seed=1)
    gate = hold(node)
    future = ask_later(robot, pixels=[Pixel(u=5.0, v=5.0)])
    assert robot.until(lambda: node.stream.worker.open_questions == 1)
    robot.show(node, sec=2, seed=2)
    robot.show(node, sec=3, seed=3)
    gate.set()
    assert robot.until(future.done)
    answer = future.result()
    predictor = Predictor.from_pretrained(str(checkpoint), device='cpu')
    view = predictor.look(robot.picture(1), robot.camera)
    assert (answer.status, answer.header.stamp) == (STATUS.OK, Time(sec=1))
    assert answer.answer == predictor.ask(view, WORDS, max_tokens=6).text
    assert answer.references[0].depth == pytest.approx(
        measure_pixel(view.depth_m, robot.camera, 5.0, 5.0).depth_m, rel=1e-4)
    assert robot.ask().header.stamp == Time(sec=3)


def test_of_many_requests_at_once_none_is_lost_unheard(active):
    node, robot = active(max_questions=4)
    robot.show(node)
    client = robot.node.create_client(
        SpatialQuery, 'depthvlm/spatial_query', qos_profile=QoSProfile(depth=128))
    assert client.wait_for_service(60.0)
    futures = [client.call_async(SpatialQuery.Request(question='How far?', max_tokens=2))
               for _ in range(40)]
    assert robot.until(lambda: all(future.done() for future in futures), 60.0)
    statuses = {future.result().status for future in futures}
    assert STATUS.OK in statuses and statuses <= {STATUS.OK, STATUS.BUSY}
    robot.node.destroy_client(client)


def test_a_client_that_dies_in_mid_answer_harms_nobody(active, hold):
    node, robot = active(max_questions=1)
    robot.show(node)
    gate = hold(node, 'token', after=2)
    script = ('import rclpy; from depthvlm_ros.srv import SpatialQuery; rclpy.init(); '
              'n = rclpy.create_node("doomed"); '
              'c = n.create_client(SpatialQuery, "depthvlm/spatial_query"); '
              'assert c.wait_for_service(60.0); '
              'f = c.call_async(SpatialQuery.Request(question="How far?", max_tokens=20)); '
              'rclpy.spin_until_future_complete(n, f, timeout_sec=60.0)')
    with subprocess.Popen([sys.executable, '-c', script]) as process:
        try:
            assert robot.until(lambda: node.stream.worker.open_questions == 1, 60.0)
        finally:
            process.kill()
    assert robot.ask().status == STATUS.BUSY
    gate.set()
    assert robot.until(lambda: node.stream.worker.open_questions == 0)
    time.sleep(0.5)
    assert robot.ask(max_tokens=1).status == STATUS.OK


def test_depth_goes_on_while_an_answer_is_decoded(active):
    node, robot = active(topics=[(DEPTH, Image)])
    assert robot.until(node.stream.first.outputs.depth_wanted)
    robot.show(node, sec=1)
    assert robot.until(lambda: len(robot.got[DEPTH]) == 1)
    token_s = [0.05]
    node._predictor.model.lm_head.register_forward_hook(lambda *_: time.sleep(token_s[0]))
    future = ask_later(robot, max_tokens=1500, timeout=Duration(sec=3600))
    assert robot.until(lambda: node.stream.worker.open_questions == 1)
    for sec in range(2, 8):
        robot.show(node, sec=sec, seed=sec)
        assert robot.until(lambda n=sec: len(robot.got[DEPTH]) == n)
    assert not future.done(), 'the answer should still be under way'
    token_s[0] = 0.0
    assert robot.until(future.done)
    assert future.result().header.stamp.sec == 1, 'it is about what was newest when it was asked'
    assert future.result().tokens == 1500


def test_several_clients_at_once_all_get_their_answers(active):
    node, robot = active(topics=[(DEPTH, Image)])
    robot.show(node)
    clients = [robot.node.create_client(SpatialQuery, 'depthvlm/spatial_query') for _ in range(8)]
    for client in clients:
        assert client.wait_for_service(60.0)
    for sec in range(2, 8):
        futures = [client.call_async(SpatialQuery.Request(
            question=WORDS if i % 2 else '', pixels=[Pixel(u=float(i), v=1.0)], max_tokens=i + 1))
            for i, client in enumerate(clients)]
        robot.show(node, sec=sec, seed=sec)
        assert robot.until(lambda waited=futures: all(f.done() for f in waited))
        answers = [future.result() for future in futures]
        assert {answer.status for answer in answers} == {STATUS.OK}
        for i, answer in enumerate(answers):
            assert answer.references[0].pixel.u == i, 'each gets its own'
            assert answer.tokens == (i + 1 if i % 2 else 0)
            assert answer.header.stamp.sec in (sec - 1, sec)
