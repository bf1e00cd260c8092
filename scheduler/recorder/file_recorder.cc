#include "scheduler/recorder/file_recorder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "common/log.h"

namespace fathom::scheduler {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

absl::Status RecorderError(const char* what, const std::string& path) {
  const std::string text =
      fmt::format("--record-events: cannot {} {}: {}", what, path, std::strerror(errno));
  if (errno == ENOSPC || errno == EDQUOT) return Exhausted("{}", text);
  return Unavailable("{}", text);
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileRecorder>> FileRecorder::Create(const std::string& path,
                                                                   const RecordingHeader& header) {
  struct stat there = {};
  if (lstat(path.c_str(), &there) == 0) {
    if (!S_ISREG(there.st_mode)) {
      return Invalid("--record-events: {} is there and no file; give the name of one", path);
    }
    if (std::rename(path.c_str(), (path + ".1").c_str()) != 0) {
      return RecorderError("rename to .1 the file that is there,", path);
    }
  }
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return RecorderError("make", path);
  auto recorder = std::unique_ptr<FileRecorder>(new FileRecorder(path, file));
  recorder->buffer_ = EncodeHeader(header);
  FATHOM_RETURN_IF_ERROR(recorder->Write());
  return recorder;
}

FileRecorder::~FileRecorder() {
  Flush();
  if (file_ >= 0) close(file_);
}

void FileRecorder::Record(const Event& event, TimeUs now) {
  if (file_ < 0) {
    ++unrecorded_;
    return;
  }
  if (const absl::Status status = EncodeEvent(event, now, &buffer_); !status.ok()) {
    Flush();
    ++unrecorded_;
    return Stop(status);
  }
  ++recorded_;
  ++buffered_;
  if (buffer_.size() >= kBufferBytes) Flush();
}

void FileRecorder::Flush() {
  if (file_ < 0 || buffer_.empty()) return;
  if (const absl::Status status = Write(); !status.ok()) Stop(status);
}

void FileRecorder::Stop(const absl::Status& why) {
  if (file_ < 0) return;
  recorded_ -= buffered_;
  unrecorded_ += buffered_;
  LogError("{}; the recording ends with event {}, {} bytes of it are whole", Message(why),
           recorded_, written_bytes_);
  close(file_);
  file_ = -1;
  buffer_ = {};
}

absl::Status FileRecorder::Write() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t bytes = write(file_, buffer_.data() + done, buffer_.size() - done);
    if (bytes > 0) done += static_cast<size_t>(bytes);
    if (bytes >= 0 || errno == EINTR) continue;
    const absl::Status status = RecorderError("write", path_);
    // Otherwise the reader sees a record that was cut off, which it can do with.
    if (ftruncate(file_, written_bytes_) != 0) LogWarn("{}", Message(RecorderError("cut", path_)));
    return status;
  }
  written_bytes_ += static_cast<int64_t>(done);
  buffer_.clear();
  if (buffer_.capacity() > 4 * kBufferBytes) buffer_.shrink_to_fit();
  buffered_ = 0;
  return absl::OkStatus();
}

}  // namespace fathom::scheduler
