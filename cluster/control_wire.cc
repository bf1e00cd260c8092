// Converts the messages of Control.
#include <utility>

#include "cluster/wire.h"
#include "cluster/wire_parts.h"
#include "cluster/wire_ranges.h"

namespace fathom {

namespace pb = cluster::v1;

namespace {

void ExchangeToWire(const GroupExchange& from, pb::GroupExchange* to) {
  to->set_epoch(from.epoch.value);
  to->set_round(from.round);
  to->set_rank(from.rank);
  to->set_bytes(from.bytes);
}

GroupExchange ExchangeFromWire(pb::GroupExchange& from) {
  return {EpochId{from.epoch()}, from.round(), from.rank(), std::move(*from.mutable_bytes())};
}

GroupSeat SeatFromWire(const pb::Group& from) {
  GroupSeat to{.group = GroupId{from.group()},
               .term = TermId{from.term()},
               .epoch = EpochId{from.epoch()},
               .tp = from.tp(),
               .pp = from.pp(),
               .rank = from.rank(),
               .peers = {},
               .blocks = from.blocks(),
               .limits = FromWire(from.limits())};
  for (const pb::Peer& peer : from.peers()) {
    to.peers.push_back({peer.process_id(), peer.host(), peer.machine(), peer.shared_memory()});
  }
  return to;
}

}  // namespace

// ---- Up ----

void ToWire(const Hello& from, pb::ControlUp* to) { ToWire(from, to->mutable_hello()); }
void ToWire(const Heartbeat& from, pb::ControlUp* to) { ToWire(from, to->mutable_heartbeat()); }

void ToWire(const GroupExchange& from, pb::ControlUp* to) {
  ExchangeToWire(from, to->mutable_exchange());
}

void ToWire(const GroupReady& from, pb::ControlUp* to) {
  pb::GroupReady* ready = to->mutable_ready();
  ready->set_term(from.term.value);
  ready->set_epoch(from.epoch.value);
  ready->set_rank(from.rank);
  ListToWire(from.startup, ready->mutable_startup());
}

void ToWire(const GroupFailed& from, pb::ControlUp* to) {
  pb::GroupFailed* failed = to->mutable_failed();
  failed->set_term(from.term.value);
  failed->set_epoch(from.epoch.value);
  failed->set_rank(from.rank);
  failed->set_message(from.message);
}

absl::StatusOr<ControlUpMessage> FromWire(pb::ControlUp&& from) {
  FATHOM_RETURN_IF_ERROR(CheckRanges(from));
  switch (from.message_case()) {
    case pb::ControlUp::kHello: {
      FATHOM_ASSIGN_OR_RETURN(Hello hello, FromWire(from.hello()));
      return hello;
    }
    case pb::ControlUp::kHeartbeat:
      return FromWire(from.heartbeat());
    case pb::ControlUp::kExchange:
      return ExchangeFromWire(*from.mutable_exchange());
    case pb::ControlUp::kReady:
      return GroupReady{TermId{from.ready().term()}, EpochId{from.ready().epoch()},
                        from.ready().rank(), MarksFromWire(from.ready().startup())};
    case pb::ControlUp::kFailed:
      return GroupFailed{TermId{from.failed().term()}, EpochId{from.failed().epoch()},
                         from.failed().rank(), from.failed().message()};
    case pb::ControlUp::MESSAGE_NOT_SET:
      break;
  }
  return UnknownMessage("Control");
}

// ---- Down ----

void ToWire(const Hello& from, pb::ControlDown* to) { ToWire(from, to->mutable_hello()); }
void ToWire(const Heartbeat& from, pb::ControlDown* to) { ToWire(from, to->mutable_heartbeat()); }

void ToWire(const GroupSeat& from, pb::ControlDown* to) {
  pb::Group* group = to->mutable_group();
  group->set_group(from.group.value);
  group->set_term(from.term.value);
  group->set_epoch(from.epoch.value);
  group->set_tp(from.tp);
  group->set_pp(from.pp);
  group->set_rank(from.rank);
  group->clear_peers();
  for (const GroupPeer& peer : from.peers) {
    pb::Peer* there = group->add_peers();
    there->set_process_id(peer.process_id);
    there->set_host(peer.host);
    there->set_machine(peer.machine);
    there->set_shared_memory(peer.shared_memory);
  }
  group->set_blocks(from.blocks);
  ToWire(from.limits, group->mutable_limits());
}

void ToWire(const GroupExchange& from, pb::ControlDown* to) {
  ExchangeToWire(from, to->mutable_exchange());
}

void ToWire(const Abort& from, pb::ControlDown* to) {
  pb::Abort* abort = to->mutable_abort();
  abort->set_term(from.term.value);
  abort->set_epoch(from.epoch.value);
  abort->set_reason(from.reason);
}

void ToWire(const Resign& from, pb::ControlDown* to) {
  to->mutable_resign()->set_term(from.term.value);
}

absl::StatusOr<ControlDownMessage> FromWire(pb::ControlDown&& from) {
  FATHOM_RETURN_IF_ERROR(CheckRanges(from));
  switch (from.message_case()) {
    case pb::ControlDown::kHello: {
      FATHOM_ASSIGN_OR_RETURN(Hello hello, FromWire(from.hello()));
      return hello;
    }
    case pb::ControlDown::kHeartbeat:
      return FromWire(from.heartbeat());
    case pb::ControlDown::kGroup:
      return SeatFromWire(from.group());
    case pb::ControlDown::kExchange:
      return ExchangeFromWire(*from.mutable_exchange());
    case pb::ControlDown::kAbort:
      return Abort{TermId{from.abort().term()}, EpochId{from.abort().epoch()},
                   from.abort().reason()};
    case pb::ControlDown::kDrain:
      return Drain{static_cast<int64_t>(from.drain().grace_ms()) * 1000};
    case pb::ControlDown::kResign:
      return Resign{TermId{from.resign().term()}};
    case pb::ControlDown::MESSAGE_NOT_SET:
      break;
  }
  return UnknownMessage("Control");
}

}  // namespace fathom
