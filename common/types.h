// common/types.h: ids that cannot be swapped for one another, and the few numbers everybody shares.
// An Id compares and hashes like its value and has no arithmetic; `.value` is the way out.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace fathom {

template <class Tag, class Rep>
struct Id {
  Rep value{};
  auto operator<=>(const Id&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const Id& id) {
    return H::combine(std::move(h), id.value);
  }
};

// A token of the vocabulary. Not an Id: kernels and codecs work on plain arrays of it.
using TokenId = int32_t;

using BlockId =
    Id<struct BlockTag, int32_t>;  // A KV block, the same index on every rank. 0 = padding.
using SlotId = Id<struct SlotTag, int32_t>;     // A sequence's seat in a group. 0 = padding.
using GroupId = Id<struct GroupTag, int32_t>;   // A set of ranks holding one copy of the model.
using PeerId = Id<struct PeerTag, int64_t>;     // A stream to a router or worker, never used twice.
using TermId = Id<struct TermTag, uint64_t>;    // Which scheduler leads. Starts at 1.
using EpochId = Id<struct EpochTag, uint64_t>;  // One life of one group. Starts at 1 in each term.
using StepId = Id<struct StepTag, uint64_t>;    // Gapless in an epoch. Starts at 0.
using AttemptId = Id<struct AttemptTag, uint64_t>;  // Number of one router's Submit. Starts at 1.

// Monotonic time in microseconds since an arbitrary origin of this process. Never compared between
// processes, never sent: durations are.
using TimeUs = int64_t;

}  // namespace fathom

template <class Tag, class Rep>
struct std::hash<fathom::Id<Tag, Rep>> {
  size_t operator()(const fathom::Id<Tag, Rep>& id) const { return std::hash<Rep>{}(id.value); }
};
