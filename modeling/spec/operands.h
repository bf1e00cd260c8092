// modeling/spec/operands.h: which parameters an op of the forward pass reads as one matrix or one
// vector. On every device, GEMMs with the same input are one GEMM: q, k and v; gate and up. Both
// weight layouts follow from this. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "modeling/spec/rank_model.h"

namespace fathom {

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

// The slices of an operand's parameters, one below the other. All have the same number of columns.
struct StackedOperand {
  Operand operand = Operand::kEmbedding;
  std::vector<const RankParameter*> parts;
  Precision precision() const { return parts.front()->parameter.precision; }
  int64_t rows() const;
  int64_t cols() const { return parts.front()->slice.cols(); }
};

// The operands that `parameters` form, in the order of their first parts. The result points into
// `parameters`.
std::vector<StackedOperand> OperandsOf(std::span<const RankParameter> parameters);

}  // namespace fathom
