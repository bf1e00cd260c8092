#include "router/api/trace_id.h"

#include <cstddef>

namespace fathom::router {

// Version 0 has the form "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01". A later version
// may append more fields.
std::string TraceIdOf(std::string_view traceparent) {
  constexpr std::string_view kForm = "hh-hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh-hhhhhhhhhhhhhhhh-hh";
  if (traceparent.size() < kForm.size()) return {};
  for (size_t i = 0; i < kForm.size(); ++i) {
    const char c = traceparent[i];
    const bool fits = kForm[i] == '-' ? c == '-' : (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    if (!fits) return {};
  }
  return std::string(traceparent.substr(3, 32));
}

}  // namespace fathom::router
