#include "cluster/request.h"

#include <fmt/format.h>

#include "cluster/plan.h"

namespace fathom {

const char* FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "NONE";
    case FinishReason::kEndToken:
      return "END_TOKEN";
    case FinishReason::kStopToken:
      return "STOP_TOKEN";
    case FinishReason::kStopString:
      return "STOP_STRING";
    case FinishReason::kLength:
      return "LENGTH";
    case FinishReason::kDeadline:
      return "DEADLINE";
    case FinishReason::kError:
      return "ERROR";
  }
  return "UNKNOWN";
}

const char* RowFaultName(RowFault fault) {
  switch (fault) {
    case RowFault::kNone:
      return "NONE";
    case RowFault::kNonFiniteLogits:
      return "NON_FINITE_LOGITS";
    case RowFault::kTokenOutOfRange:
      return "TOKEN_OUT_OF_RANGE";
    case RowFault::kBlockOutOfRange:
      return "BLOCK_OUT_OF_RANGE";
  }
  return "UNKNOWN";
}

std::string ModelOf(const ComputeKind& kind, const std::string& fingerprint) {
  if (kind.model_digest.empty()) return fingerprint;
  return fmt::format("{}/{}/{}", kind.model_digest, kind.dtype, kind.recipe);
}

const FingerprintSpan* LastSpan(const Record& record) {
  for (const SequenceRecord& sequence : record.sequences) {
    if (!sequence.fingerprints.empty()) return &sequence.fingerprints.back();
  }
  return nullptr;
}

std::string ToText(const ComputeKind& kind) {
  return fmt::format("model {:.12}, {}, recipe {}, {}, tensor parallelism {}",
                     kind.model_digest.empty() ? "not known" : kind.model_digest, kind.dtype,
                     kind.recipe, kind.device_kind, kind.tp);
}

}  // namespace fathom
