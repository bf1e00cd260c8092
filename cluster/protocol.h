// cluster/protocol.h: the numbers that both ends of a stream of cluster.proto must agree on: the
// version of the protocol, the longest message, and the times after which a peer is taken for dead.
#pragma once

#include <cstdint>

namespace fathom {

// Versions that this build speaks. Two peers understand each other when their ranges overlap.
inline constexpr uint32_t kProtocolMin = 1;
inline constexpr uint32_t kProtocolMax = 1;

// Longest message on any stream, in both directions.
inline constexpr int32_t kClusterMessageBytesMax = 64 << 20;

// Each end of Route and Control sends a heartbeat this often.
inline constexpr int64_t kHeartbeatUs = 250'000;
// A peer that sends heartbeats and is silent for longer is dead: its stream is ended.
inline constexpr int64_t kSilenceUs = 2'000'000;
// A worker tells by `hears_leader` that the leader was silent for longer. Below kSilenceUs, so that
// the worker's doubt is known before anybody acts on the silence.
inline constexpr int64_t kLeaderDoubtUs = 1'500'000;
// The first message of either end comes within this time, or the stream is ended.
inline constexpr int64_t kFirstMessageUs = 5'000'000;
// Wait before a stream that ended is dialled again: the first one, doubled up to the longest.
inline constexpr int64_t kRedialUsMin = 50'000;
inline constexpr int64_t kRedialUsMax = 100'000;

}  // namespace fathom
