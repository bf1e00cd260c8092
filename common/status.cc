#include "common/status.h"

#include "absl/strings/cord.h"

namespace fathom {
namespace {

// Payload: reason '\n' field '\n' retry_after_ms. Reasons and field paths contain no newline.
constexpr char kDetailUrl[] = "fathom/error-detail";

}  // namespace

std::string_view CodeName(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return "OK";
    case absl::StatusCode::kCancelled:
      return "CANCELLED";
    case absl::StatusCode::kInvalidArgument:
      return "INVALID_ARGUMENT";
    case absl::StatusCode::kDeadlineExceeded:
      return "DEADLINE_EXCEEDED";
    case absl::StatusCode::kNotFound:
      return "NOT_FOUND";
    case absl::StatusCode::kAlreadyExists:
      return "ALREADY_EXISTS";
    case absl::StatusCode::kPermissionDenied:
      return "PERMISSION_DENIED";
    case absl::StatusCode::kResourceExhausted:
      return "RESOURCE_EXHAUSTED";
    case absl::StatusCode::kFailedPrecondition:
      return "FAILED_PRECONDITION";
    case absl::StatusCode::kAborted:
      return "ABORTED";
    case absl::StatusCode::kOutOfRange:
      return "OUT_OF_RANGE";
    case absl::StatusCode::kUnimplemented:
      return "UNIMPLEMENTED";
    case absl::StatusCode::kInternal:
      return "INTERNAL";
    case absl::StatusCode::kUnavailable:
      return "UNAVAILABLE";
    case absl::StatusCode::kDataLoss:
      return "DATA_LOSS";
    case absl::StatusCode::kUnauthenticated:
      return "UNAUTHENTICATED";
    default:
      return "UNKNOWN";
  }
}

std::string ToString(const absl::Status& status) {
  if (status.ok()) return "OK";
  return fmt::format("{}: {}", CodeName(status.code()), Message(status));
}

absl::Status WithDetail(absl::Status status, const ErrorDetail& detail) {
  status.SetPayload(kDetailUrl, absl::Cord(fmt::format("{}\n{}\n{}", detail.reason, detail.field,
                                                       detail.retry_after_ms)));
  return status;
}

std::optional<ErrorDetail> DetailOf(const absl::Status& status) {
  auto payload = status.GetPayload(kDetailUrl);
  if (!payload.has_value()) return std::nullopt;
  const std::string text(*payload);
  const size_t first = text.find('\n');
  const size_t second = text.find('\n', first + 1);
  return ErrorDetail{text.substr(0, first), text.substr(first + 1, second - first - 1),
                     std::stoll(text.substr(second + 1))};
}

absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  absl::Status result = MakeStatus(status.code(), fmt::format("{}: {}", context, Message(status)));
  if (auto detail = DetailOf(status)) return WithDetail(std::move(result), *detail);
  return result;
}

}  // namespace fathom
