// scheduler/sessions/session_actions.h: what routers are sent because of one event. Plain data.
#pragma once

#include <string>
#include <vector>

#include "cluster/route_messages.h"
#include "common/types.h"

namespace fathom::scheduler {

// A message of a Route stream, up or down, and the router at the other end of the stream.
template <class M>
struct Routed {
  PeerId router;
  M message;
};

struct SessionActions {
  std::vector<Routed<Accepted>> accepted;
  std::vector<Routed<Refused>> refused;
  std::vector<Routed<Frame>> frames;
  std::vector<std::string> log;  // Lines of the log; only a few for each event.
};

}  // namespace fathom::scheduler
