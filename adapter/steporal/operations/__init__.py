"""Operations on runs and installations: functions that return rows, for commands and pages to show."""
