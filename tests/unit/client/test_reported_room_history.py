"""Any history of a room, delivered in any way: applying the events leads to the true list."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from reactor.client.reported_room import ReportedRoom
from reactor.protocol.events import RoomEvent
from reactor.protocol.messages import Member, RoomDiff
from tests.unit.client.test_reported_room import ME, change, make_member

names = st.sampled_from([ME, "ann", "bob", "cy"])


class AnyHistory(RuleBasedStateMachine):
    """A room lives, and its news are lost, repeated or late: who follows the events knows the list."""

    @initialize()
    def join(self) -> None:
        self.clock = 10
        self.epoch, self.version = "e1", 1
        self.room = {ME: make_member(ME)}
        self.news: list[RoomDiff] = []
        self.reported = ReportedRoom("r", ME)
        self.replayed: dict[str, Member] = {}
        self.snapshot()

    def follow(self, events: list[RoomEvent]) -> None:
        for event in events:
            if event.kind == "sync":
                self.replayed = {member.user_id: member for member in event.members}
            else:
                assert event.member is not None
                user_id = event.member.user_id
                if event.kind == "join":
                    assert user_id not in self.replayed
                    self.replayed[user_id] = event.member
                elif event.kind == "update":
                    assert user_id in self.replayed
                    self.replayed[user_id] = event.member
                else:
                    del self.replayed[user_id]
                    assert event.reason

    def deliver(self, diff: RoomDiff) -> None:
        self.news.append(diff)
        self.version = diff.version

    @rule()
    def snapshot(self) -> None:
        self.follow(self.reported.snapshot(self.epoch, self.version, list(self.room.values())))

    @rule(name=names)
    def comes(self, name: str) -> None:
        self.clock += 1
        if name not in self.room:
            self.room[name] = make_member(name, self.clock)
            self.deliver(change(self.version, self.version + 1, epoch=self.epoch, joined=[self.room[name]]))

    @rule(name=names)
    def changes(self, name: str) -> None:
        if name in self.room:
            old = self.room[name]
            self.room[name] = make_member(name, old.joined_at, away=not old.away)
            self.deliver(change(self.version, self.version + 1, epoch=self.epoch, updated=[self.room[name]]))

    @rule(name=names)
    def goes(self, name: str) -> None:
        if name in self.room:
            del self.room[name]
            self.deliver(change(self.version, self.version + 1, epoch=self.epoch, left=[(name, "left")]))

    @rule()
    def is_lost_by_redis(self) -> None:
        self.clock += 1
        self.epoch, self.version, self.room = f"e{self.clock}", 0, {}
        self.news.clear()

    @rule()
    def receives(self) -> None:
        for diff in self.news:
            self.follow(self.reported.diff(diff))

    @rule(data=st.data())
    def misses(self, data: st.DataObject) -> None:
        if self.news:
            del self.news[data.draw(st.integers(0, len(self.news) - 1))]

    @rule()
    def loses_the_connection(self) -> None:
        self.reported.connection_lost()

    @rule()
    def settles(self) -> None:
        self.follow(self.reported.settle())

    @invariant()
    def the_events_and_the_list_agree(self) -> None:
        assert self.replayed.keys() == self.reported.members.keys()
        for user_id, member in self.reported.members.items():
            assert self.replayed[user_id].away == member.away

    def teardown(self) -> None:
        self.reported.connection_lost()
        self.snapshot()
        self.follow(self.reported.settle())
        assert self.replayed.keys() == self.room.keys()
        assert {name: member.away for name, member in self.replayed.items()} == {
            name: member.away for name, member in self.room.items()
        }


AnyHistory.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestAnyHistory = AnyHistory.TestCase
