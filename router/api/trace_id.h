// router/api/trace_id.h: the id that a call has in the client's own tracing. Pure.
#pragma once

#include <string>
#include <string_view>

namespace fathom::router {

// The trace id in a "traceparent" header (W3C Trace Context): 32 hexadecimal digits. Empty: the
// header is absent or malformed, which is not an error.
std::string TraceIdOf(std::string_view traceparent);

}  // namespace fathom::router
