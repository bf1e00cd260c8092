// tests/fuzz/fuzz.h: the functions that a fuzz target defines: LLVMFuzzerTestOneInput, which
// libFuzzer calls, and seeds to mutate. A target aborts (FATHOM_CHECK, a sanitizer) on a bug;
// refusing an input is not a bug.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// Valid and nearly valid inputs, which driver.cc mutates.
std::vector<std::string> FuzzSeeds();
