"""The attributes of jobs and files on the wire, in the order that is a contract: it only ever grows at the end."""

from __future__ import annotations

JOB_ATTRIBUTES: tuple[str, ...] = tuple(
    """
    PandaID jobDefinitionID schedulerID pilotID creationTime creationHost modificationTime modificationHost AtlasRelease
    transformation homepackage prodSeriesLabel prodSourceLabel prodUserID assignedPriority currentPriority attemptNr
    maxAttempt jobStatus jobName maxCpuCount maxCpuUnit maxDiskCount maxDiskUnit ipConnectivity minRamCount minRamUnit
    startTime endTime cpuConsumptionTime cpuConsumptionUnit commandToPilot transExitCode pilotErrorCode pilotErrorDiag
    exeErrorCode exeErrorDiag supErrorCode supErrorDiag ddmErrorCode ddmErrorDiag brokerageErrorCode brokerageErrorDiag
    jobDispatcherErrorCode jobDispatcherErrorDiag taskBufferErrorCode taskBufferErrorDiag computingSite computingElement
    jobParameters metadata prodDBlock dispatchDBlock destinationDBlock destinationSE nEvents grid cloud cpuConversion
    sourceSite destinationSite transferType taskID cmtConfig stateChangeTime prodDBUpdateTime lockedby relocationFlag
    jobExecutionID VO pilotTiming workingGroup processingType
    prodUserName nInputFiles countryGroup batchID parentID specialHandling jobsetID coreCount nInputDataFiles
    inputFileType inputFileProject inputFileBytes nOutputDataFiles outputFileBytes jobMetrics workQueue_ID jediTaskID
    jobSubStatus actualCoreCount reqID maxRSS maxVMEM maxSWAP maxPSS avgRSS avgVMEM avgSWAP avgPSS maxWalltime nucleus
    eventService failedAttempt hs06sec gshare hs06 totRCHAR totWCHAR totRBYTES totWBYTES rateRCHAR rateWCHAR rateRBYTES
    rateWBYTES resource_type diskIO memory_leak memory_leak_x2 container_name job_label gco2_regional gco2_global
    cpu_architecture_level outputFileType
    """.split()
)

FILE_ATTRIBUTES: tuple[str, ...] = tuple(
    """
    row_ID PandaID GUID lfn type dataset status prodDBlock prodDBlockToken dispatchDBlock dispatchDBlockToken
    destinationDBlock destinationDBlockToken destinationSE fsize md5sum checksum scope
    jediTaskID datasetID fileID attemptNr
    """.split()
)

FILES = "Files"  # the list of files in a job given as a dictionary
UNSET = "NULL"  # how unset values travel
