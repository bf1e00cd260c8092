// tests/fuzz/fuzz.h: what a fuzz target defines: LLVMFuzzerTestOneInput, as libFuzzer calls it, and
// seeds to mutate. A target aborts (FATHOM_CHECK, a sanitizer) on a bug; that an input is refused
// is none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// Valid inputs, and near ones, that driver.cc mutates.
std::vector<std::string> FuzzSeeds();
