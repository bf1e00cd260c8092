// cli/explain_report.h: the answer of `fathom explain`, as a text for a person and as JSON. Pure.
#pragma once

#include <string>

#include "client/types.h"

namespace fathom::client {

// A line for the request, a bar of its whole time, a row for each part, and what happened to it:
// limits that it waited for, stays, chunks, gaps. Ends with a newline.
std::string ExplainText(const Explanation& explanation);

// One JSON object in one line, with the names of inference.proto.
std::string ExplainJson(const Explanation& explanation);

}  // namespace fathom::client
