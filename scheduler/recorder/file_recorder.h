// scheduler/recorder/file_recorder.h: records into a file (scheduler/recorder/recording.h), one
// write() for each event. The file ends with a whole record: when an event cannot be written (a
// full disk), the part of it that was written is cut off again, one line is logged and the
// recording is over; the scheduler goes on. Thread: one.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "common/status.h"
#include "scheduler/recorder/event_recorder.h"
#include "scheduler/recorder/recording.h"

namespace fathom::scheduler {

class FileRecorder final : public EventRecorder {
 public:
  // Makes the file, which only its owner may read, for it has prompts and answers as token ids. A
  // file that is there is renamed to PATH.1: a scheduler that is started again after a crash must
  // not take away what tells of it. INVALID_ARGUMENT (there is something else than a file),
  // UNAVAILABLE or RESOURCE_EXHAUSTED names the path.
  static absl::StatusOr<std::unique_ptr<FileRecorder>> Create(const std::string& path,
                                                              const RecordingHeader& header);
  ~FileRecorder() override;
  FileRecorder(const FileRecorder&) = delete;
  FileRecorder& operator=(const FileRecorder&) = delete;

  void Record(const Event& event, TimeUs now) override;

 private:
  FileRecorder(std::string path, int file) : path_(std::move(path)), file_(file) {}
  // Ends the recording.
  void Stop(const absl::Status& why);
  absl::Status Write(std::string_view record);

  const std::string path_;
  int file_ = -1;              // -1: stopped.
  std::string record_;         // The event that is being written.
  int64_t written_bytes_ = 0;  // The file's length up to its last whole record.
};

}  // namespace fathom::scheduler
