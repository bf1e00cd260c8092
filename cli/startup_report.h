// cli/startup_report.h: the start of a group as a table for people. Pure.
#pragma once

#include <string>

#include "client/types.h"

namespace fathom::client {

// One line for the group and one for each rank: when each part of the rank's start ended, in
// seconds since the begin of the group's start. The rank that was ready last is marked.
std::string TextOf(const GroupTimeline& start);

}  // namespace fathom::client
