// common/group_shape.h: which rank of a group does what. A group has tp * pp ranks: `pp` stages,
// which follow each other, and in each stage `tp` ranks, which share its layers. No other code
// computes the place of a rank. Pure; any thread.
#pragma once

#include <cstdint>

#include "common/status.h"

namespace fathom {

// The most ranks of a group on the CPU, and of one stage.
inline constexpr int32_t kGroupRanksMax = 64;

struct GroupShape {
  int32_t tp = 1;
  int32_t pp = 1;

  constexpr int32_t ranks() const { return tp * pp; }
  constexpr int32_t StageOf(int32_t rank) const { return rank / tp; }
  constexpr int32_t TpRankOf(int32_t rank) const { return rank % tp; }
  constexpr int32_t RankAt(int32_t stage, int32_t tp_rank) const { return stage * tp + tp_rank; }
  // The rank whose results have rows: tp rank 0 of the last stage, which samples.
  constexpr int32_t answering_rank() const { return RankAt(pp - 1, 0); }
  bool operator==(const GroupShape&) const = default;
};

// INVALID_ARGUMENT if the flags give a group more ranks than kGroupRanksMax; the message has the
// numbers that are possible. REQUIRES: both numbers are in 1 to kGroupRanksMax.
inline absl::Status CheckGroupShape(const GroupShape& shape) {
  if (shape.ranks() <= kGroupRanksMax) return absl::OkStatus();
  return Invalid(
      "--tensor-parallel-size {} and --pipeline-parallel-size {} make {} ranks, and a group has at "
      "most {}; with {} ranks for each layer use 1 to {} stages, or more copies with -dp",
      shape.tp, shape.pp, shape.ranks(), kGroupRanksMax, shape.tp, kGroupRanksMax / shape.tp);
}

}  // namespace fathom
