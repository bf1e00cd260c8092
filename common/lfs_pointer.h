// common/lfs_pointer.h: a Git LFS pointer, the small text that stands for a large file where a
// repository was cloned without Git LFS. Pure.
#pragma once

#include <string_view>

namespace fathom {

// Whether a file's first bytes are those of a pointer.
inline bool IsLfsPointer(std::string_view begin) {
  return begin.starts_with("version https://git-lfs.github.com/spec/");
}

// What to say of such a file, behind its name.
inline constexpr char kLfsPointerMessage[] =
    "is a Git LFS pointer, not the file itself; fetch it: `git lfs install && git lfs pull` in the "
    "model folder, or download the folder again";

}  // namespace fathom
