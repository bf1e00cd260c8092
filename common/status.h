// common/status.h: absl::Status for errors that others cause. Only this header and status.cc make
// and read the text of a Status, because Debian's Abseil has its own string_view (docs/STYLE.md,
// "Errors").
//
// A message says what was given, the limit, whose limit it is, and what to do. A Status may carry
// an ErrorDetail: a stable reason, the field of the request, and the delay before a retry. gRPC
// replies turn it into google.rpc details.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace fathom {

// The message as a std::string_view, which is valid while `status` lives.
inline std::string_view Message(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

inline absl::Status MakeStatus(absl::StatusCode code, std::string_view message) {
  return absl::Status(code, absl::string_view(message.data(), message.size()));
}

// The name of a code in gRPC, e.g. "INVALID_ARGUMENT".
std::string_view CodeName(absl::StatusCode code);
// "INVALID_ARGUMENT: message", for logs.
std::string ToString(const absl::Status& status);

#define FATHOM_STATUS_MAKER(Name, Code)                                      \
  template <class... Args>                                                   \
  absl::Status Name(fmt::format_string<Args...> text, Args&&... args) {      \
    return MakeStatus(Code, fmt::format(text, std::forward<Args>(args)...)); \
  }
FATHOM_STATUS_MAKER(Invalid, absl::StatusCode::kInvalidArgument)
FATHOM_STATUS_MAKER(NotFound, absl::StatusCode::kNotFound)
FATHOM_STATUS_MAKER(AlreadyExists, absl::StatusCode::kAlreadyExists)
FATHOM_STATUS_MAKER(Exhausted, absl::StatusCode::kResourceExhausted)
FATHOM_STATUS_MAKER(FailedPrecondition, absl::StatusCode::kFailedPrecondition)
FATHOM_STATUS_MAKER(Aborted, absl::StatusCode::kAborted)
FATHOM_STATUS_MAKER(OutOfRange, absl::StatusCode::kOutOfRange)
FATHOM_STATUS_MAKER(Unimplemented, absl::StatusCode::kUnimplemented)
FATHOM_STATUS_MAKER(Unavailable, absl::StatusCode::kUnavailable)
FATHOM_STATUS_MAKER(Internal, absl::StatusCode::kInternal)
FATHOM_STATUS_MAKER(DeadlineExceeded, absl::StatusCode::kDeadlineExceeded)
FATHOM_STATUS_MAKER(Cancelled, absl::StatusCode::kCancelled)
FATHOM_STATUS_MAKER(DataLoss, absl::StatusCode::kDataLoss)
#undef FATHOM_STATUS_MAKER

// The part of an error that a program can use, in addition to the text for people.
struct ErrorDetail {
  // Stable, UPPER_SNAKE_CASE, e.g. "CONTEXT_LENGTH_EXCEEDED". docs/API.md lists them.
  std::string reason;
  std::string field;  // Path of the request's field, e.g. "sampling.temperature"; empty: none.
  int64_t retry_after_ms = 0;  // 0: a retry does not help.
};

// `status` with `detail` attached, which replaces an existing one. REQUIRES: !status.ok().
absl::Status WithDetail(absl::Status status, const ErrorDetail& detail);
// The detail; nullopt: none.
std::optional<ErrorDetail> DetailOf(const absl::Status& status);

// The same code and detail, with "context: " before the message; OK stays OK.
absl::Status Annotate(const absl::Status& status, std::string_view context);

}  // namespace fathom

// Returns from the enclosing function when `expr` (an absl::Status) is not OK.
#define FATHOM_RETURN_IF_ERROR(expr)                 \
  do {                                               \
    absl::Status fathom_status_ = (expr);            \
    if (!fathom_status_.ok()) return fathom_status_; \
  } while (false)

#define FATHOM_CONCAT_INNER_(a, b) a##b
#define FATHOM_CONCAT_(a, b) FATHOM_CONCAT_INNER_(a, b)
// FATHOM_ASSIGN_OR_RETURN(auto x, MakeX()): assigns the value of a StatusOr, or returns its status.
#define FATHOM_ASSIGN_OR_RETURN(lhs, expr) \
  FATHOM_ASSIGN_OR_RETURN_(FATHOM_CONCAT_(fathom_or_, __LINE__), lhs, expr)
#define FATHOM_ASSIGN_OR_RETURN_(tmp, lhs, expr) \
  auto tmp = (expr);                             \
  if (!tmp.ok()) return tmp.status();            \
  lhs = *std::move(tmp)
