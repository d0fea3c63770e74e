# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The policy of the security enclave, held against what the live node has."""

import gc
from pathlib import Path
from xml.etree import ElementTree

import pytest
from sensor_msgs.msg import Image

pytestmark = pytest.mark.ros

POLICY = Path(__file__).parents[2] / 'config/security/depthvlm.policy.xml'
ACTION_SERVICES = 'send_goal', 'cancel_goal', 'get_result'
ACTION_TOPICS = 'feedback', 'status'


def allowed(enclave, kind, verb):
    """Return the full names that the node of an enclave may use, tildes resolved."""
    profile = ElementTree.parse(POLICY).find(f".//enclave[@path='{enclave}']//profile")
    names = [item.text for group in profile.findall(kind) if group.get(verb) == 'ALLOW'
             for item in group]
    node = f'/{profile.get("node")}'
    return {name.replace('~', node, 1) if name.startswith('~')
            else name if name.startswith('/') else f'/{name}' for name in names}


@pytest.fixture
def alone():
    """Collect what other tests left: of two nodes of a name the graph may tell of the dead one."""
    gc.collect()


@pytest.fixture(scope='module')
def names():
    actions = allowed('/depthvlm', 'actions', 'execute')
    parts = {verb: {f'{a}/_action/{part}' for a in actions for part in some}
             for verb, some in (('services', ACTION_SERVICES), ('topics', ACTION_TOPICS))}
    return {'publish': allowed('/depthvlm', 'topics', 'publish') | parts['topics'],
            'subscribe': allowed('/depthvlm', 'topics', 'subscribe'),
            'reply': allowed('/depthvlm', 'services', 'reply') | parts['services']}


def test_the_live_node_has_nothing_that_is_not_allowed(alone, active, names):
    node, robot = active([('depthvlm/depth/image', Image)])
    own = node.get_name(), node.get_namespace()
    # Others learn of its services a moment after its topics.
    assert robot.until(lambda: robot.node.get_service_names_and_types_by_node(*own))
    assert robot.until(lambda: robot.node.get_publisher_names_and_types_by_node(*own))
    assert robot.until(lambda: robot.node.get_subscriber_names_and_types_by_node(*own))
    for verb, found in (
            ('publish', robot.node.get_publisher_names_and_types_by_node(*own)),
            ('subscribe', robot.node.get_subscriber_names_and_types_by_node(*own)),
            ('reply', robot.node.get_service_names_and_types_by_node(*own))):
        has = {name for name, _ in found}
        assert has
        assert has <= names[verb], verb


def test_nothing_is_allowed_that_the_node_never_has(alone, active, names):
    node, robot = active([('depthvlm/depth/image', Image)])
    own = node.get_name(), node.get_namespace()
    services = {name for name, _ in robot.node.get_service_names_and_types_by_node(*own)}
    # The first comes with Jazzy.
    assert names['reply'] - services <= {'/depthvlm/get_type_description'}
    published = {name for name, _ in robot.node.get_publisher_names_and_types_by_node(*own)}
    assert names['publish'] <= published


def test_an_asker_may_ask_and_no_more():
    assert allowed('/depthvlm_asker', 'services', 'request') == {
        '/depthvlm/spatial_query', '/depthvlm/measure'}
    assert allowed('/depthvlm_asker', 'actions', 'call') == {'/depthvlm/answer'}
    assert allowed('/depthvlm_asker', 'topics', 'publish') == {'/rosout', '/parameter_events'}
