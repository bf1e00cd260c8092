// scheduler/sessions/session_actions.h: what routers are sent because of one event. Plain data.
#pragma once

#include <string>
#include <vector>

#include "cluster/route_messages.h"
#include "common/types.h"

namespace fathom::scheduler {

// A message of a router's Route stream, up or down, and whose stream it is.
template <class M>
struct Routed {
  PeerId router;
  M message;
};

struct SessionActions {
  std::vector<Routed<Accepted>> accepted;
  std::vector<Routed<Refused>> refused;
  std::vector<Routed<Frame>> frames;
  std::vector<std::string> log;  // Lines for people, a few of one event.
};

}  // namespace fathom::scheduler
