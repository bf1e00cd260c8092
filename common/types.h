// common/types.h: types for ids, so that the compiler refuses one kind of id in the place of
// another, and a few types that all folders use. An Id compares and hashes like its value and has
// no arithmetic; `.value` gives the number.
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

// A KV block; the same index on every rank. 0 = padding.
using BlockId = Id<struct BlockTag, int32_t>;
using SlotId = Id<struct SlotTag, int32_t>;     // A sequence's place in a group. 0 = padding.
using GroupId = Id<struct GroupTag, int32_t>;   // A set of ranks holding one copy of the model.
using PeerId = Id<struct PeerTag, int64_t>;     // A stream to a router or worker; never reused.
using TermId = Id<struct TermTag, uint64_t>;    // Identifies the leading scheduler. Starts at 1.
using EpochId = Id<struct EpochTag, uint64_t>;  // One life of one group. Starts at 1 in each term.
using StepId = Id<struct StepTag, uint64_t>;    // Without gaps in an epoch. Starts at 0.
using AttemptId = Id<struct AttemptTag, uint64_t>;  // The number of a router's Submit. Starts at 1.

// Monotonic time in microseconds since an arbitrary origin in this process. Times of two processes
// cannot be compared, so messages carry durations instead.
using TimeUs = int64_t;

}  // namespace fathom

template <class Tag, class Rep>
struct std::hash<fathom::Id<Tag, Rep>> {
  size_t operator()(const fathom::Id<Tag, Rep>& id) const { return std::hash<Rep>{}(id.value); }
};
