// common/trace_context.h: the trace that a request belongs to, by W3C Trace Context: the header
// "traceparent" as text and its parts. Pure.
#pragma once

#include <string>
#include <string_view>

namespace fathom {

struct TraceContext {
  std::string trace_id;  // 32 hexadecimal digits; empty: no trace.
  std::string span_id;   // 16: the span of the sender, which is the parent of the receiver's.
  bool sampled = false;  // The sender records its spans.
  bool operator==(const TraceContext&) const = default;
};

// A span that this process makes.
struct SpanContext {
  TraceContext context;   // What is sent on: the trace, the span itself, whether it is recorded.
  std::string parent_id;  // Empty: it is the root of its trace.
  bool operator==(const SpanContext&) const = default;
};

// Empty: the header is absent or malformed, which is not an error.
TraceContext ParseTraceparent(std::string_view traceparent);
// "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"; empty for an empty context.
std::string FormatTraceparent(const TraceContext& context);

}  // namespace fathom
