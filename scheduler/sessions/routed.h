// scheduler/sessions/routed.h: a message of a router's stream together with the router. Plain data.
#pragma once

#include "common/types.h"

namespace fathom::scheduler {

// A message of a router's Route stream, up or down, and whose stream it is.
template <class M>
struct Routed {
  PeerId router;
  M message;
};

}  // namespace fathom::scheduler
