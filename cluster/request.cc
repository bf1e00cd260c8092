#include "cluster/request.h"

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

}  // namespace fathom
