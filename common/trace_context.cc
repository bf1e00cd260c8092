#include "common/trace_context.h"

#include <fmt/format.h>

#include <cstddef>

namespace fathom {
namespace {

constexpr std::string_view kForm = "hh-hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh-hhhhhhhhhhhhhhhh-hh";

bool AllZero(std::string_view digits) {
  return digits.find_first_not_of('0') == std::string_view::npos;
}

int Hex(char digit) { return digit <= '9' ? digit - '0' : digit - 'a' + 10; }

}  // namespace

// Version 0 has exactly this form. A later version may append more fields; version ff is invalid,
// and so are ids of zeros.
TraceContext ParseTraceparent(std::string_view traceparent) {
  if (traceparent.size() < kForm.size()) return {};
  for (size_t i = 0; i < kForm.size(); ++i) {
    const char c = traceparent[i];
    const bool fits = kForm[i] == '-' ? c == '-' : (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    if (!fits) return {};
  }
  const std::string_view version = traceparent.substr(0, 2);
  const std::string_view trace_id = traceparent.substr(3, 32);
  const std::string_view span_id = traceparent.substr(36, 16);
  if (version == "ff" || AllZero(trace_id) || AllZero(span_id)) return {};
  if (version == "00" && traceparent.size() != kForm.size()) return {};
  if (traceparent.size() > kForm.size() && traceparent[kForm.size()] != '-') return {};
  return {std::string(trace_id), std::string(span_id), (Hex(traceparent[54]) & 1) != 0};
}

std::string FormatTraceparent(const TraceContext& context) {
  if (context.trace_id.empty()) return {};
  return fmt::format("00-{}-{}-{}", context.trace_id, context.span_id,
                     context.sampled ? "01" : "00");
}

}  // namespace fathom
