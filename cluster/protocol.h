// cluster/protocol.h: the numbers that both ends of a stream of cluster.proto must agree on: the
// version of the protocol, the longest message, and the times after which a peer counts as dead.
#pragma once

#include <cstdint>

namespace fathom {

// The versions that this build speaks. Two peers can talk if their ranges overlap. They speak the
// highest version that both know (CommonProtocol in messages.h), and a sender leaves out what that
// version does not have, because the receiver refuses a request or a plan with a field that it does
// not know.
inline constexpr uint32_t kProtocolMin = 1;
inline constexpr uint32_t kProtocolMax = 2;
// What version 2 added: ExplainAsk; the trace context of a request in Submit and Admit; priority
// and cache of a record; the thinking budget of a request; swap space, drafts and grammars, which
// only workers of this version have; and that a worker zeroes no block that may be shared
// (worker/engine/engine.h), so that the blocks of a group are shared only if all of its workers
// speak version 2.
inline constexpr uint32_t kProtocol2 = 2;

// The longest message on any stream, in both directions.
inline constexpr int32_t kClusterMessageBytesMax = 64 << 20;
// The longest set-up data of one rank (GroupExchange).
inline constexpr int32_t kExchangeBytesMax = 1 << 20;
// How much of a stream may be on its way to a receiver that does not read (the window of HTTP/2).
inline constexpr int32_t kStreamWindowBytes = 8 << 20;

// Each end of Route and Control sends a heartbeat this often.
inline constexpr int64_t kHeartbeatUs = 250'000;
// A peer that sends heartbeats and is silent for longer is dead, and its stream is ended.
inline constexpr int64_t kSilenceUs = 2'000'000;
// After this silence of the leader, a worker reports `hears_leader` = false. It is below
// kSilenceUs, so the report arrives before any process acts on the silence.
inline constexpr int64_t kLeaderDoubtUs = 1'500'000;
// A stream is ended if the first message of either end takes longer.
inline constexpr int64_t kFirstMessageUs = 5'000'000;
// The wait before an ended stream is dialled again: the first wait, and the longest one after
// doubling.
inline constexpr int64_t kRedialUsMin = 50'000;
inline constexpr int64_t kRedialUsMax = 100'000;

}  // namespace fathom
