// cli/verify/verify_cached.h: `fathom verify --cached`.
#pragma once

#include <cstdint>

#include "client/client.h"

namespace fathom::client {

struct CachedOptions {
  int32_t cases = 32;
  uint64_t seed = 1;
  int concurrency = 8;
  bool json = false;
};

// Sends each prompt twice, and the next turn of each conversation once through the cache and once
// around it, and compares the bits of the answers. Prints the report and returns the exit code.
int VerifyCached(Client& client, const Model& model, const CachedOptions& options);

}  // namespace fathom::client
