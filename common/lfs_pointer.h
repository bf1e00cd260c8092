// common/lfs_pointer.h: a Git LFS pointer: the small text that is in the place of a large file if a
// repository was cloned without Git LFS. Pure.
#pragma once

#include <string_view>

namespace fathom {

// Whether a file's first bytes are those of a pointer.
inline bool IsLfsPointer(std::string_view begin) {
  return begin.starts_with("version https://git-lfs.github.com/spec/");
}

// The message for such a file; the file's name precedes it.
inline constexpr char kLfsPointerMessage[] =
    "is a Git LFS pointer, not the file itself; fetch it: `git lfs install && git lfs pull` in the "
    "model folder, or download the folder again";

}  // namespace fathom
