#include "modeling/spec/operands.h"

#include <algorithm>

#include "common/check.h"

namespace fathom {

std::string_view NameOf(Operand operand) {
  switch (operand) {
    case Operand::kEmbedding:
      return "embedding";
    case Operand::kAttentionNorm:
      return "attention_norm";
    case Operand::kQkv:
      return "qkv";
    case Operand::kQkvBias:
      return "qkv_bias";
    case Operand::kQNorm:
      return "q_norm";
    case Operand::kKNorm:
      return "k_norm";
    case Operand::kO:
      return "o";
    case Operand::kFfnNorm:
      return "ffn_norm";
    case Operand::kGateUp:
      return "gate_up";
    case Operand::kDown:
      return "down";
    case Operand::kFinalNorm:
      return "final_norm";
    case Operand::kHead:
      return "head";
  }
  FATHOM_CHECK(false, "operand {}", static_cast<int>(operand));
  return {};
}

Operand OperandOf(ParameterRole role) {
  switch (role) {
    case ParameterRole::kEmbedding:
      return Operand::kEmbedding;
    case ParameterRole::kAttentionNorm:
      return Operand::kAttentionNorm;
    case ParameterRole::kQ:
    case ParameterRole::kK:
    case ParameterRole::kV:
      return Operand::kQkv;
    case ParameterRole::kQBias:
    case ParameterRole::kKBias:
    case ParameterRole::kVBias:
      return Operand::kQkvBias;
    case ParameterRole::kQNorm:
      return Operand::kQNorm;
    case ParameterRole::kKNorm:
      return Operand::kKNorm;
    case ParameterRole::kO:
      return Operand::kO;
    case ParameterRole::kFfnNorm:
      return Operand::kFfnNorm;
    case ParameterRole::kGate:
    case ParameterRole::kUp:
      return Operand::kGateUp;
    case ParameterRole::kDown:
      return Operand::kDown;
    case ParameterRole::kFinalNorm:
      return Operand::kFinalNorm;
    case ParameterRole::kLmHead:
      return Operand::kHead;
  }
  FATHOM_CHECK(false, "role {}", static_cast<int>(role));
  return {};
}

int64_t StackedOperand::rows() const {
  int64_t rows = 0;
  for (const RankParameter* part : parts) rows += part->slice.rows();
  return rows;
}

std::vector<StackedOperand> OperandsOf(std::span<const RankParameter> parameters) {
  std::vector<StackedOperand> operands;
  for (const RankParameter& one : parameters) {
    const Operand wanted = OperandOf(one.parameter.role);
    auto found = std::find_if(operands.begin(), operands.end(), [&](const StackedOperand& operand) {
      return operand.operand == wanted;
    });
    if (found == operands.end()) {
      operands.push_back({.operand = wanted, .parts = {}});
      found = std::prev(operands.end());
    }
    found->parts.push_back(&one);
    FATHOM_CHECK(one.slice.cols() == found->cols(), "{}", one.parameter.name);
  }
  return operands;
}

}  // namespace fathom
