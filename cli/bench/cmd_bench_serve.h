// cli/bench/cmd_bench_serve.h: the command `fathom bench serve`.
#pragma once

namespace fathom::client {

// argv[0] is "serve".
int RunBenchServe(int argc, const char* const* argv);

}  // namespace fathom::client
