from __future__ import annotations

import threading
import time

from coam_ros.nodes.mailbox import Mailbox

DEADLINE_S = 10.0


def take_in_thread(mailbox, **arguments):
    taken = []
    thread = threading.Thread(target=lambda: taken.append(mailbox.take(**arguments)))
    thread.start()
    return thread, taken


def test_newest_item_wins_and_the_others_are_counted():
    mailbox = Mailbox()
    for item in range(5):
        mailbox.put(item)
    assert mailbox.take() == 4
    assert mailbox.num_dropped == 4


def test_take_waits_for_an_item():
    mailbox = Mailbox()
    thread, taken = take_in_thread(mailbox)
    mailbox.put('late')
    thread.join(DEADLINE_S)
    assert taken == ['late']


def test_rate_limit_hands_out_the_newest_item_at_its_time():
    mailbox = Mailbox()
    mailbox.put('old')
    not_before_s = time.monotonic() + 0.2
    thread, taken = take_in_thread(mailbox, not_before_s=not_before_s)
    mailbox.put('new')
    thread.join(DEADLINE_S)
    assert taken == ['new']
    assert time.monotonic() >= not_before_s


def test_hurry_overrides_the_rate_limit_once():
    mailbox = Mailbox()
    mailbox.put('item')
    thread, taken = take_in_thread(mailbox, not_before_s=time.monotonic() + 1000.0)
    mailbox.hurry()
    thread.join(DEADLINE_S)
    assert taken == ['item']
    mailbox.put('next')
    not_before_s = time.monotonic() + 0.1
    assert mailbox.take(not_before_s) == 'next'
    assert time.monotonic() >= not_before_s


def test_closing_wakes_the_worker_with_nothing():
    mailbox = Mailbox()
    thread, taken = take_in_thread(mailbox)
    mailbox.close()
    thread.join(DEADLINE_S)
    assert taken == [None]
    mailbox.put('too late')
    assert mailbox.take() is None
