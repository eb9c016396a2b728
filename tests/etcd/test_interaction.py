"""tests/etcd/interaction.py: the commands that not every file uses answer as etcd's do."""

from pathlib import Path

from tests.etcd.judge import run_file

SCRIPT = """\
dance
----
unknown command

log-level loud
----
log levels must be either of [DEBUG INFO WARN ERROR FATAL NONE]

add-nodes 3 voters=(1,2,3) index=1
----
index must be specified as > 1 due to bootstrap

add-nodes 3 voters=(1,2,3) index=10 content=foo
----
ok

# Several commands may share an answer.
campaign 1
stabilize
raft-state
----
> 1 handling Ready
  Ready MustSync=true:
  Lead:0 State:StateCandidate
  HardState Term:1 Vote:1 Commit:10
  Messages:
  1->2 MsgVote Term:1 Log:1/10
  1->3 MsgVote Term:1 Log:1/10
> 2 receiving messages
  1->2 MsgVote Term:1 Log:1/10
> 3 receiving messages
  1->3 MsgVote Term:1 Log:1/10
> 2 handling Ready
  Ready MustSync=true:
  HardState Term:1 Vote:1 Commit:10
  Messages:
  2->1 MsgVoteResp Term:1 Log:0/0
> 3 handling Ready
  Ready MustSync=true:
  HardState Term:1 Vote:1 Commit:10
  Messages:
  3->1 MsgVoteResp Term:1 Log:0/0
> 1 receiving messages
  2->1 MsgVoteResp Term:1 Log:0/0
  3->1 MsgVoteResp Term:1 Log:0/0
> 1 handling Ready
  Ready MustSync=true:
  Lead:1 State:StateLeader
  Entries:
  1/11 EntryNormal ""
  Messages:
  1->2 MsgApp Term:1 Log:1/10 Commit:10 Entries:[1/11 EntryNormal ""]
  1->3 MsgApp Term:1 Log:1/10 Commit:10 Entries:[1/11 EntryNormal ""]
> 2 receiving messages
  1->2 MsgApp Term:1 Log:1/10 Commit:10 Entries:[1/11 EntryNormal ""]
> 3 receiving messages
  1->3 MsgApp Term:1 Log:1/10 Commit:10 Entries:[1/11 EntryNormal ""]
> 2 handling Ready
  Ready MustSync=true:
  Lead:1 State:StateFollower
  Entries:
  1/11 EntryNormal ""
  Messages:
  2->1 MsgAppResp Term:1 Log:0/11
> 3 handling Ready
  Ready MustSync=true:
  Lead:1 State:StateFollower
  Entries:
  1/11 EntryNormal ""
  Messages:
  3->1 MsgAppResp Term:1 Log:0/11
> 1 receiving messages
  2->1 MsgAppResp Term:1 Log:0/11
  3->1 MsgAppResp Term:1 Log:0/11
> 1 handling Ready
  Ready MustSync=false:
  HardState Term:1 Vote:1 Commit:11
  CommittedEntries:
  1/11 EntryNormal ""
  Messages:
  1->2 MsgApp Term:1 Log:1/11 Commit:11
  1->3 MsgApp Term:1 Log:1/11 Commit:11
> 2 receiving messages
  1->2 MsgApp Term:1 Log:1/11 Commit:11
> 3 receiving messages
  1->3 MsgApp Term:1 Log:1/11 Commit:11
> 2 handling Ready
  Ready MustSync=false:
  HardState Term:1 Vote:1 Commit:11
  CommittedEntries:
  1/11 EntryNormal ""
  Messages:
  2->1 MsgAppResp Term:1 Log:0/11
> 3 handling Ready
  Ready MustSync=false:
  HardState Term:1 Vote:1 Commit:11
  CommittedEntries:
  1/11 EntryNormal ""
  Messages:
  3->1 MsgAppResp Term:1 Log:0/11
> 1 receiving messages
  2->1 MsgAppResp Term:1 Log:0/11
  3->1 MsgAppResp Term:1 Log:0/11
1: StateLeader (Voter) Term:1 Lead:1
2: StateFollower (Voter) Term:1 Lead:1
3: StateFollower (Voter) Term:1 Lead:1

propose-conf-change 1 v1=true transition=explicit
v4
----
v1 conf change can only have one operation and no transition

propose-conf-change 1 transition=slow
v4
----
unknown transition slow

propose-conf-change 1
x4
----
unknown input: x4

deliver-msgs 1 2 3
----
no messages

report-unreachable 1 2
status 1
----
1: StateReplicate match=11 next=12
2: StateProbe match=11 next=12
3: StateReplicate match=11 next=12

# One kind is delivered, the rest is dropped, in the order that is asked for.
tick-heartbeat 1
propose 1 bar
process-ready 1
deliver-msgs type=MsgApp drop=(2) 3
deliver-msgs drop=(3) 2
----
Ready MustSync=true:
Entries:
1/12 EntryNormal "bar"
Messages:
1->2 MsgHeartbeat Term:1 Log:0/0 Commit:11
1->3 MsgHeartbeat Term:1 Log:0/0 Commit:11
1->2 MsgApp Term:1 Log:1/11 Commit:11 Entries:[1/12 EntryNormal "bar"]
1->3 MsgApp Term:1 Log:1/11 Commit:11 Entries:[1/12 EntryNormal "bar"]
dropped: 1->2 MsgApp Term:1 Log:1/11 Commit:11 Entries:[1/12 EntryNormal "bar"]
1->3 MsgApp Term:1 Log:1/11 Commit:11 Entries:[1/12 EntryNormal "bar"]
dropped: 1->3 MsgHeartbeat Term:1 Log:0/0 Commit:11
1->2 MsgHeartbeat Term:1 Log:0/0 Commit:11

stabilize log-level=none
----
ok

# What is proposed while the leader hands over is an error, which no log level silences.
log-level none
deliver-msgs drop=(2)
transfer-leadership from=1 to=2
propose 1 baz
----
raft proposal dropped

stabilize
log-level debug
raft-state
----
1: StateFollower (Voter) Term:2 Lead:2
2: StateLeader (Voter) Term:2 Lead:2
3: StateFollower (Voter) Term:2 Lead:2

# The snapshot is that of the newest entry that is applied.
send-snapshot 2 3
----
2->3 MsgSnap Term:2 Log:0/0
  Snapshot: Index:13 Term:2 ConfState:Voters:[1 2 3] VotersOutgoing:[] Learners:[] \
LearnersNext:[] AutoLeave:false

compact 2 13
----
log is empty: first index=14, last index=13

compact 2 12
----
requested index is unavailable due to compaction

process-append-thread 1
----
no append work to perform

process-apply-thread 1 2
----
> 1 processing apply thread
  no apply work to perform
> 2 processing apply thread
  no apply work to perform
"""


ERRORS = """\
add-nodes 2 voters=(1,2) index=10
----
ok

# The first command fails: the second one is not done.
dance
add-nodes 1 voters=(1,2) index=10
----
unknown command

raft-state
----
1: StateFollower (Voter) Term:0 Lead:0
2: StateFollower (Voter) Term:0 Lead:0

# A later one fails: those behind it are done.
raft-state
dance
compact 1 9
raft-state
----
1: StateFollower (Voter) Term:0 Lead:0
2: StateFollower (Voter) Term:0 Lead:0
unknown commandrequested index is unavailable due to compaction\
1: StateFollower (Voter) Term:0 Lead:0
2: StateFollower (Voter) Term:0 Lead:0

# If only errors are shown, such an error is the whole answer and the end.
raft-state
log-level none
dance
log-level debug
----
unknown command

raft-state
----
ok

log-level debug
raft-state
----
1: StateFollower (Voter) Term:0 Lead:0
2: StateFollower (Voter) Term:0 Lead:0
"""


def test_an_error_ends_a_block_where_etcds_does(tmp_path: Path) -> None:
    """The error of its first command; a later one only where nothing else is shown."""
    path = tmp_path / "script.txt"
    path.write_text(ERRORS)
    for outcome in run_file(path):
        assert outcome.equal, f"line {outcome.block.line}:\n{outcome.found}"


def test_commands(tmp_path: Path) -> None:
    """Each block of a script of our own."""
    path = tmp_path / "script.txt"
    path.write_text(SCRIPT.replace("\\\n", ""))
    for outcome in run_file(path):
        assert outcome.equal, f"line {outcome.block.line}:\n{outcome.found}"
