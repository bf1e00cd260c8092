// router/api/trace_id.h: by which a client's own tracing knows a call. Pure.
#pragma once

#include <string>
#include <string_view>

namespace fathom::router {

// The trace id of a "traceparent" header (W3C Trace Context): 32 hexadecimal digits. Empty: the
// header is absent or not of that form, which is no error.
std::string TraceIdOf(std::string_view traceparent);

}  // namespace fathom::router
