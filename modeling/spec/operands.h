// modeling/spec/operands.h: which parameters an op of the forward pass reads as one matrix or one
// vector. Products of one input are one product, on every device: q, k and v; gate and up. Both
// weight layouts follow from it. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "modeling/spec/rank_model.h"

namespace fathom::worker {

enum class Operand {
  kEmbedding,
  kAttentionNorm,
  kQkv,
  kQkvBias,
  kQNorm,
  kKNorm,
  kO,
  kFfnNorm,
  kGateUp,
  kDown,
  kFinalNorm,
  kHead,
};

// "qkv", "gate_up", ...
std::string_view NameOf(Operand operand);
Operand OperandOf(ParameterRole role);

// The slices of its parameters, one below the other; they have the same columns.
struct StackedOperand {
  Operand operand = Operand::kEmbedding;
  std::vector<const RankParameter*> parts;
  Precision precision() const { return parts.front()->parameter.precision; }
  int64_t rows() const;
  int64_t cols() const { return parts.front()->slice.cols(); }
};

// The operands that `parameters` make, in the order of their first parts. The result points into
// `parameters`.
std::vector<StackedOperand> OperandsOf(std::span<const RankParameter> parameters);

}  // namespace fathom::worker
