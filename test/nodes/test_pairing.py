# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
from depthvlm_ros.nodes.pairing import Pairing, Stamped
import pytest


def image(stamp_ns, frame_id='optical', size=(96, 128)):
    return Stamped(stamp_ns, frame_id, size, f'image {stamp_ns}')


def info(stamp_ns, value='K', frame_id='optical', size=(96, 128)):
    return Stamped(stamp_ns, frame_id, size, value)


def values(pairs):
    return [(image.value, calibration) for image, calibration in pairs]


def test_an_image_takes_the_info_of_its_own_stamp_in_either_order():
    pairing = Pairing()
    assert pairing.add_info(info(1, 'K1')) == []
    assert values(pairing.add_image(image(1))) == [('image 1', 'K1')]
    assert pairing.add_image(image(2)) == [], 'K1 fits, but its own info is on the way'
    assert values(pairing.add_info(info(2, 'K2'))) == [('image 2', 'K2')]
    assert pairing.reason == ''


def test_new_intrinsics_hold_from_their_image_on():
    pairing = Pairing()
    pairing.add_info(info(1, 'K1'))
    pairing.add_image(image(1))
    pairing.add_info(info(3, 'K3'))
    pairing.add_info(info(2, 'K2'))
    assert values(pairing.add_image(image(2))) == [('image 2', 'K2')]
    assert values(pairing.add_image(image(3))) == [('image 3', 'K3')]


def test_a_latched_info_serves_all_images():
    pairing = Pairing()
    pairing.add_info(info(0))
    assert [values(pairing.add_image(image(i))) for i in (5, 6)] == [
        [('image 5', 'K')], [('image 6', 'K')]]


def test_the_first_image_waits_for_the_first_info():
    pairing = Pairing()
    assert pairing.add_image(image(5)) == []
    assert 'no camera_info' in pairing.reason
    assert values(pairing.add_info(info(0))) == [('image 5', 'K')]


def test_an_info_that_got_lost_costs_no_image():
    pairing = Pairing()
    pairing.add_info(info(1, 'K1'))
    pairing.add_image(image(1))
    assert pairing.add_image(image(2)) == []    # its info is lost
    assert values(pairing.add_image(image(3))) == [('image 2', 'K1'), ('image 3', 'K1')]
    assert pairing.add_info(info(4, 'K4')) == []
    assert values(pairing.add_image(image(4))) == [('image 4', 'K4')]
    assert pairing.add_image(image(5)) == [], 'infos come by stamp again'


@pytest.mark.parametrize('lost', [False, True])
def test_images_that_come_before_their_infos_find_them_all_the_same(lost):
    pairing = Pairing()
    pairing.add_info(info(1, 'K1'))     # its image came before anybody listened
    if lost:
        pairing.add_image(image(1))
        pairing.add_image(image(2))     # and this one's info is lost
    assert values(pairing.add_image(image(3)))[-1] == ('image 3', 'K1')
    assert pairing.add_info(info(3, 'K3')) == []
    assert values(pairing.add_image(image(4))) == [('image 4', 'K3')]
    assert pairing.add_info(info(4, 'K4')) == []
    for stamp_ns in (5, 6):
        assert pairing.add_image(image(stamp_ns)) == []
        assert values(pairing.add_info(info(stamp_ns, f'K{stamp_ns}'))) == [
            (f'image {stamp_ns}', f'K{stamp_ns}')]


def test_infos_that_come_now_and_then_hold_no_image_up():
    pairing = Pairing()
    pairing.add_info(info(1, 'K1'))
    for stamp_ns in range(2, 12):
        newest = 1 if stamp_ns < 6 else 5 if stamp_ns < 10 else 9
        assert values(pairing.add_image(image(stamp_ns))) == [(f'image {stamp_ns}', f'K{newest}')]
        if stamp_ns in (5, 9):
            assert pairing.add_info(info(stamp_ns, f'K{stamp_ns}')) == []


def test_what_two_readers_meet_counts_once():
    pairing = Pairing()
    pairing.add_image(image(1))
    assert len(pairing.add_info(info(1))) == 1
    pairing.add_image(image(2))
    assert pairing.add_info(info(1)) == []


def test_what_the_second_reader_brings_late_is_not_the_newest():
    pairing = Pairing()
    for stamp_ns, calibration in ((1, 'K1'), (2, 'K2'), (1, 'K1')):
        pairing.add_info(info(stamp_ns, calibration))
    assert values(pairing.add_image(image(9))) == [('image 9', 'K2')]


@pytest.mark.parametrize(('other', 'reason'), [
    ({'frame_id': 'rear'}, "frame 'rear', the image of 'optical'"),
    ({'size': (48, 64)}, '64 x 48 px, the image has 128 x 96')])
def test_another_cameras_info_is_not_taken(other, reason):
    pairing = Pairing()
    pairing.add_info(info(0, **other))
    assert pairing.add_image(image(5)) == []
    assert reason in pairing.reason


def test_unknown_sizes_and_empty_frames_fit():
    pairing = Pairing()
    pairing.add_info(info(0, frame_id=''))
    assert len(pairing.add_image(image(5, size=None))) == 1


def test_stamps_within_the_tolerance_are_one():
    pairing = Pairing(tolerance_ns=10)
    pairing.add_info(info(100, 'K100'))
    pairing.add_info(info(105, 'K105'))
    assert values(pairing.add_image(image(107))) == [('image 107', 'K105')]
    assert pairing.add_image(image(120)) == []
    assert values(pairing.add_info(info(112, 'K112'))) == [('image 120', 'K112')]


def test_where_stamps_do_not_matter_no_image_waits_for_its_own():
    pairing = Pairing(mode='newest')
    pairing.add_info(info(0, 'K0'))
    for stamp_ns in range(1, 6):
        assert values(pairing.add_image(image(stamp_ns))) == [
            (f'image {stamp_ns}', f'K{stamp_ns - 1}')]
        assert pairing.add_info(info(stamp_ns, f'K{stamp_ns}')) == []


def test_a_second_info_within_the_tolerance_ends_no_pairing_by_stamp():
    pairing = Pairing(tolerance_ns=10)
    pairing.add_info(info(100, 'K100'))
    assert len(pairing.add_image(image(100))) == 1
    assert pairing.add_info(info(105, 'K105')) == []
    assert pairing.add_image(image(200)) == [], 'its own info is on the way'
    assert values(pairing.add_info(info(200, 'K200'))) == [('image 200', 'K200')]


def test_clear_forgets_what_waits():
    pairing = Pairing()
    pairing.add_image(image(1))
    pairing.clear()
    assert pairing.add_info(info(1)) == []


def test_an_image_that_never_finds_an_info_is_given_up_with_the_reason():
    pairing = Pairing()
    pairing.add_image(image(1))
    assert pairing.given_up == ''
    pairing.add_image(image(2))
    assert 'no camera_info: remap' in pairing.given_up
    pairing.add_info(info(0, frame_id='rear'))
    pairing.add_image(image(3))
    assert "of frame 'rear'" in pairing.given_up
    pairing.add_info(info(3))
    pairing.add_image(image(4))
    assert pairing.given_up == ''


def test_by_stamp_alone():
    pairing = Pairing(mode='stamp')
    pairing.add_info(info(1, 'K1'))
    assert pairing.add_image(image(2)) == []
    assert values(pairing.add_info(info(2, 'K2'))) == [('image 2', 'K2')]
    assert pairing.add_image(image(3)) == []
    assert pairing.add_info(info(9)) == []
    assert pairing.add_image(image(4)) == []
    assert 'other stamps than the images: set sync' in pairing.given_up


def test_by_the_newest_alone():
    pairing = Pairing(mode='newest')
    for stamp_ns in (1, 2):
        pairing.add_info(info(stamp_ns, f'K{stamp_ns}'))
    assert values(pairing.add_image(image(1))) == [('image 1', 'K2')], 'stamps do not matter'
    assert values(pairing.add_image(image(2))) == [('image 2', 'K2')]
    assert values(pairing.add_image(image(3))) == [('image 3', 'K2')], 'and nothing waits'


def test_another_mode_is_refused():
    with pytest.raises(ValueError, match="'guess', wanted one of"):
        Pairing(mode='guess')
